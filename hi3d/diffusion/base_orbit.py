"""The video to which a small model's stage adds a diffused difference; not in the paper."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BaseOrbit:
    """A video whose difference is diffused, for models trained so."""

    rgb: Tensor  # [B, T, 3, H, W]
    """Over white, in [0, 1]."""
    alpha: Tensor | None = None  # [B, T, 1, H, W]
    """In [0, 1]; None where it does not say what is background."""
    free: Tensor | None = None  # [B, T, 1, H, W]
    """Share of the difference that counts, in [0, 1]; None: all of it."""

    def __getitem__(self, index: int) -> "BaseOrbit":
        """One of the B videos, as a batch of one."""
        alpha, free = (None if x is None else x[index][None] for x in (self.alpha, self.free))
        return BaseOrbit(self.rgb[index][None], alpha, free)

    def within(self, frames: Tensor) -> Tensor:
        """Frames that differ from the base only as far as they are free to.

        Args:
            frames: [B, T, 3, H, W] over white, in [0, 1].
        """
        if self.free is None:
            return frames
        rgb, free = self.rgb.to(frames), self.free.to(frames)
        return rgb + free * (frames - rgb)
