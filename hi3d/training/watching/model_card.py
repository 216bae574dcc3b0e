"""The model card of an exported training: what its settings and its run know."""

from pathlib import Path

from hi3d.diffusion.folders.model_card import ONE_OBJECT, STAGE1, STAGE2, UNSEEN, ModelCard
from hi3d.training.checkpoints import git_revision
from hi3d.training.experiment import Experiment

WHAT = {"stage1": STAGE1, "stage2": STAGE2}
STARTS = ("init_from", "vae", "image_encoder", "depth_estimator", "elevation_estimator", "stage1")
"""Settings that name a folder whose weights went in or were trained with."""


def training_card(experiment: Experiment, steps: int, world_size: int = 1) -> ModelCard:
    """The card of a folder that a training exports.

    Only the last names of paths are told, so that a card can be published as it is.

    Args:
        experiment: settings of the training.
        steps: optimizer steps that the weights have taken.
        world_size: processes that trained.
    """
    task = experiment.task
    folders = {name: getattr(experiment, name, None) for name in STARTS}
    # In the small model's trainings some of these names are groups of settings.
    starts = {name: last_name(given) for name, given in folders.items() if isinstance(given, str)}
    return ModelCard(
        f"hi3d {task}",
        WHAT.get(task, f"A network of the small model, trained by the task `{task}`."),
        task if task in WHAT else "part",
        _data(experiment),
        _facts(experiment, steps, world_size)
        | {f"`{name}`": f"`{folder}`" for name, folder in starts.items()},
        _license(starts),
        limits=(ONE_OBJECT, UNSEEN, "No score was measured by the export: evaluate before use."),
    )


def last_name(path: str) -> str:
    """The last name of a path or URL, without what may hold a key."""
    return Path(path.partition("?")[0].rstrip("/")).name


def _data(experiment: Experiment) -> str:
    data = experiment.data
    checked = f"validated on `{last_name(data.val)}`" if data.val else "without validation"
    return (
        f"Orbits `{last_name(data.train)}`, {checked}, at {data.resolution} pixels. Where the "
        "objects come from, and their licenses, is known to whoever rendered them: write it here."
    )


def _facts(experiment: Experiment, steps: int, world_size: int) -> dict[str, str]:
    data, optim, trainer = experiment.data, experiment.optim, experiment.trainer
    batch = data.batch_size * trainer.accumulate * world_size
    average = f", moving average of {optim.ema_decay:g}" if optim.ema_decay else ""
    return {
        "Steps": f"{steps} of {trainer.max_steps}, {batch} orbits each",
        "Optimizer": f"{optim.optimizer}, learning rate {optim.lr:g}{average}",
        "Precision": trainer.precision,
        "Seed": str(experiment.seed),
        "Code": git_revision() or "without a checkout",
    }


def _license(starts: dict[str, str]) -> str:
    own = "Whoever trained the weights chooses their license: write it here."
    if not starts:
        return f"{own} No weights of others went in."
    return f"{own} Those of {', '.join(f'`{name}`' for name in starts.values())} bind it too."
