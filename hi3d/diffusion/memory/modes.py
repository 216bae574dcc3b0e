"""Modes of sampling that trade time for memory and give the same output."""

from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from hi3d.cameras import NUM_ORBIT_VIEWS
from hi3d.diffusion.conditioning import VAE


@dataclass(frozen=True)
class MemoryMode:
    """How much is held at once."""

    chunk_size: int
    """Frames that the encoder, the depth model and a decoder without time take together."""
    parts: int
    """Pieces in which the UNet's attention and feed-forward layers are computed."""
    sequential: bool
    """Both halves of guidance, and several orbits, one after another."""
    offload: bool
    """Networks wait in the computer's memory for their turn on the GPU."""


MEMORY_MODES = {
    "fast": MemoryMode(16, 1, sequential=False, offload=False),
    "balanced": MemoryMode(4, 4, sequential=True, offload=False),
    "low": MemoryMode(1, 8, sequential=True, offload=True),
}


def set_parts(unet: Any, parts: int, num_frames: int = NUM_ORBIT_VIEWS) -> None:
    """Compute attention and feed-forward layers in pieces; 1 undoes it.

    Args:
        unet: changed in place.
        parts: pieces; the feed-forward layers take a divisor of the frames.
        num_frames: of a video.
    """
    plain = plain_processors(unet)
    if parts == 1 and plain == unet.attn_processors:
        return
    chunked = {name: ChunkedAttention(each, parts) for name, each in plain.items()}
    unet.set_attn_processor(plain if parts == 1 else chunked)
    chunk_size = None if parts == 1 else num_frames // gcd(num_frames, parts)
    for module in unet.modules():
        if hasattr(module, "set_chunk_feed_forward"):
            module.set_chunk_feed_forward(chunk_size=chunk_size, dim=0)


def plain_processors(unet: Any) -> dict[str, Any]:
    """The attention processors of a UNet, without those of `set_parts` around them."""
    return {
        name: each.processor if isinstance(each, ChunkedAttention) else each
        for name, each in unet.attn_processors.items()
    }


class ChunkedAttention:
    """An attention processor that takes the sequences of a batch in pieces, as they are apart."""

    def __init__(self, processor: Any, parts: int):
        """Args:
        processor: of diffusers, which computes a piece.
        parts: at most so many pieces.
        """
        self.processor, self.parts = processor, parts

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,  # [N, L, C]
        encoder_hidden_states: Tensor | None = None,  # [N, M, D]
        attention_mask: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        """Attention of N sequences of length L, each to itself or to M embeddings. [N, L, C]"""
        if attention_mask is not None:
            return self.processor(
                attn, hidden_states, encoder_hidden_states, attention_mask, **more
            )
        output = torch.empty_like(hidden_states)
        size = -(-len(hidden_states) // self.parts)
        for start in range(0, len(hidden_states), size):
            piece = slice(start, start + size)
            context = None if encoder_hidden_states is None else encoder_hidden_states[piece]
            output[piece] = self.processor(attn, hidden_states[piece], context, **more)
        return output


def decode_chunk_size(vae: VAE, wanted: int, mode: MemoryMode) -> int:
    """Frames decoded together.

    A decoder that mixes the frames of a chunk, such as SVD's, gives another output for another
    chunk: there the setting stands in every mode.

    Args:
        vae: the decoder.
        wanted: `SamplerConfig.decode_chunk_size`.
        mode: of the pipeline.
    """
    mixes = isinstance(vae, AutoencoderKLTemporalDecoder)
    return wanted if mixes else min(wanted, mode.chunk_size)
