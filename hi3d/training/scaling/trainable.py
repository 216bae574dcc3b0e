"""Which weights of a UNet are trained: all, some by name, or adapters of low rank beside them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from omegaconf import ListConfig
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from hi3d.errors import InputError

ENTRANCE = (r"^conv_in\.", r"^add_embedding\.")
"""Where a stage differs from the model that it starts from: trained with every named part."""
PARTS: dict[str, tuple[str, ...]] = {
    "all": (r"",),
    "temporal": (r"temporal", r"time_pos_embed", r"time_mixer", *ENTRANCE),
    "attention": (r"\.attn[12]\.", *ENTRANCE),
}
"""Patterns of the parameters that a word stands for."""
LORA = "lora"
ADAPTER = "default"
"""peft's name of the adapter."""


@dataclass
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685), used with `trainable=lora`."""

    rank: int = 16
    alpha: float = 16.0
    """The adapters' product is scaled by alpha / rank."""
    targets: list[str] = field(default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"])
    """Linear layers that get an adapter, by the end of their names."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank={self.rank}: give a number of at least 1")


def choose_trainable(network: nn.Module, trainable: Any, lora: LoraConfig) -> None:
    """Set `requires_grad` of every parameter, and add the adapters.

    Args:
        network: a UNet.
        trainable: `all`, `temporal`, `attention`, `lora`, or a list of regular expressions that are
            searched in the names of the parameters.
        lora: of the adapters.

    Raises:
        InputError: the word is unknown, a pattern finds nothing or is none, or peft is missing.
    """
    if trainable == LORA:
        add_adapters(network, lora)
        return
    patterns = patterns_of(trainable)
    names = [name for name, _ in network.named_parameters()]
    for pattern in () if isinstance(trainable, str) else patterns:
        if not any(re.search(pattern, name) for name in names):
            raise InputError(
                f"trainable: no parameter has '{pattern}' in its name, such as {names[0]}"
            )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(re.search(pattern, name) for pattern in patterns))


def patterns_of(trainable: Any) -> Sequence[str]:
    """The regular expressions that `trainable` means.

    Raises:
        InputError: it is an unknown word, or no list of regular expressions.
    """
    if isinstance(trainable, str):
        if trainable not in PARTS:
            words = ", ".join([*PARTS, LORA])
            raise InputError(f"trainable={trainable}: choose {words} or a list of patterns")
        return PARTS[trainable]
    if not isinstance(trainable, list | tuple | ListConfig) or not trainable:
        raise InputError(f"trainable={trainable}: give a word or a list of patterns")
    for pattern in trainable:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise InputError(
                f"trainable: '{pattern}' is no regular expression ({error})"
            ) from error
    return list(trainable)


def add_adapters(network: nn.Module, config: LoraConfig) -> None:
    """Add low-rank adapters, which begin as no change, and train nothing else.

    Raises:
        InputError: peft is missing, or no layer has such a name.
    """
    if find_spec("peft") is None:
        raise InputError("trainable=lora needs peft: pip install 'hi3d[lora]'")
    import peft

    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets)
    )
    try:
        peft.inject_adapter_in_model(settings, network, adapter_name=ADAPTER)
    except ValueError as error:
        raise InputError(f"lora.targets={config.targets}: no layer has such a name") from error


def merged(state: dict[str, Tensor], lora: LoraConfig) -> dict[str, Tensor]:
    """A state dict with its adapters, if there are any, added to the weights beside them.

    Args:
        state: of the network as it was trained.
        lora: its scale.

    Returns:
        The state dict of the network without adapters.
    """
    weights = {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
    down = f".lora_A.{ADAPTER}.weight"
    for name, first in state.items():
        if name.endswith(down):
            layer = name.removesuffix(down)
            second = state[f"{layer}.lora_B.{ADAPTER}.weight"]
            change = (second.float() @ first.float()) * (lora.alpha / lora.rank)
            weight = weights[f"{layer}.weight"]
            weights[f"{layer}.weight"] = (weight.float() + change).to(weight)
    return weights


def save_adapter(adapters: dict[str, Tensor], lora: LoraConfig, folder: Path) -> None:
    """Write the adapters alone as peft does: `adapter_model.safetensors` and its config."""
    import peft
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    ends = (f".{ADAPTER}.weight", ".weight")
    named = {
        f"base_model.model.{name.replace(*ends)}": value.contiguous()
        for name, value in adapters.items()
    }
    save_file(named, folder / "adapter_model.safetensors")
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), inference_mode=True
    )
    settings.save_pretrained(str(folder))


def build_optimizer(parameters: list[nn.Parameter], kind: str, **settings: Any) -> Any:
    """AdamW, with its moments in 32 or in 8 bits (arXiv 2110.02861); on the CPU in one pass.

    Raises:
        InputError: the kind is unknown, or bitsandbytes is missing.
    """
    if kind == "adamw":
        fused = all(p.device.type == "cpu" and not isinstance(p, DTensor) for p in parameters)
        optimizer: Any = torch.optim.AdamW(parameters, fused=fused or None, **settings)
        # Fused steps can unscale gradients themselves; then nobody else may clip them.
        optimizer._step_supports_amp_scaling = False
        return optimizer
    if kind != "adamw_8bit":
        raise InputError(f"optim.optimizer={kind}: choose adamw or adamw_8bit")
    if find_spec("bitsandbytes") is None:
        raise InputError("optim.optimizer=adamw_8bit needs bitsandbytes: pip install 'hi3d[8bit]'")
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit(parameters, **settings)
