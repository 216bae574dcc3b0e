"""Progress and the user's callback after each sampling step."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hi3d.diffusion.edm import AfterStep, c_noise
from hi3d.errors import InputError
from hi3d.progress import progress_bar

CallbackOnStepEnd = Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]
"""diffusers': (pipeline, step, timestep, {"latents": ...}) -> the same dict, maybe changed."""
TENSOR_INPUTS = ("latents", "denoised")
"""What a callback may ask for; of these `latents` may be changed."""


def check_tensor_inputs(names: Sequence[str]) -> None:
    """Refuse names that a callback cannot be given.

    Raises:
        InputError: one is not of `TENSOR_INPUTS`.
    """
    unknown = [name for name in names if name not in TENSOR_INPUTS]
    if unknown:
        raise InputError(
            f"callback_on_step_end_tensor_inputs has {unknown[0]}: there are "
            f"{' and '.join(TENSOR_INPUTS)}"
        )


@contextmanager
def after_steps(
    pipeline: Any,
    description: str,
    sigmas: Tensor,
    callback: CallbackOnStepEnd | None = None,
    tensor_inputs: Sequence[str] = ("latents",),
) -> Iterator[AfterStep]:
    """A solver's `after_step`, which moves a progress bar and calls the user's callback.

    Args:
        pipeline: the callback's first argument; its `set_progress_bar_config` is heeded.
        description: the stage's name.
        sigmas: [num_steps + 1].
        callback: of the user.
        tensor_inputs: what it is given.
    """
    shown = pipeline.progress_bar_config
    bar = progress_bar()
    bar.disable = bar.disable or bool(shown.get("disable"))
    task = bar.add_task(shown.get("desc") or description, total=len(sigmas) - 1, status="")

    def after_step(step: int, x: Tensor, denoised: Tensor) -> Tensor | None:
        bar.update(task, completed=step + 1)
        if callback is None:
            return None
        given = {"latents": x, "denoised": denoised}
        timestep = c_noise(sigmas[step])
        changed = callback(pipeline, step, timestep, {name: given[name] for name in tensor_inputs})
        return None if changed is None else changed.get("latents")

    with bar:
        yield after_step
