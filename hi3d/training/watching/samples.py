"""Orbits that the model samples while it is trained, always of the same objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from hi3d.files import atomic_path
from hi3d.images.lpips import LpipsNetwork, lpips_of
from hi3d.images.video import write_video
from hi3d.orbits.decoding import unpack_orbits
from hi3d.training.average import is_sharded
from hi3d.training.datamodule import OrbitDataModule
from hi3d.training.diffusion_module import DiffusionModule
from hi3d.training.experiment import SamplesConfig
from hi3d.training.module import Batch
from hi3d.training.random_state import BatchPosition

SHOWN_VIEWS = 8
"""Of each orbit in a picture, evenly around."""
VIDEO_FPS = 8
"""A turn of 16 views takes two seconds."""


class SampleOrbits(Callback):
    """Writes `samples/step=N.png` and `.mp4`, truth above sample for each object; logs scores.

    PSNR and SSIM, and LPIPS where its weights are installed.
    """

    def __init__(self, config: SamplesConfig, folder: Path):
        """Args:
        config: how often, how many and with which noise levels.
        folder: of the pictures.
        """
        self.config = config
        self.folder = folder
        self.done_step = 0
        self.batch: Batch = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """What a resumed run begins with has been sampled."""
        self.done_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Sample every `every` optimiser steps."""
        every, step = self.config.every, trainer.global_step
        if not isinstance(module, DiffusionModule) or every is None:
            return
        if step % every or step == self.done_step:
            return
        self.done_step = step
        if trainer.is_global_zero or is_sharded(module.network):
            self.sample(trainer, module)

    @torch.no_grad()
    def sample(self, trainer: pl.Trainer, module: DiffusionModule) -> None:
        """Sample, write and log."""
        batch = self.orbits(trainer.datamodule, module.device)  # type: ignore[attr-defined]
        module.eval()
        module.position = BatchPosition("samples")
        with module.averaged_weights(), trainer.precision_plugin.forward_context():
            sampled = module.sample(batch, self.config.steps, self.config.sigma_max)
        module.train()
        if not trainer.is_global_zero:
            return
        scores = view_scores(sampled[:, 1:], batch["rgb"][:, 1:])
        for logger in trainer.loggers:
            logger.log_metrics(scores, trainer.global_step)
        path = self.folder / f"step={trainer.global_step:08d}.png"
        image = picture(batch["rgb"], sampled)
        write_picture(path, image)
        video = path.with_suffix(".mp4")
        write_video(video, video_frames(batch["rgb"], sampled), sampled.shape[1], VIDEO_FPS)
        log_pictures(trainer, image, video)

    def orbits(self, data: OrbitDataModule, device: torch.device) -> Batch:
        """The first validation orbits of this process, read once."""
        if not self.batch:
            batches: list[Batch] = []
            for batch in data.val_dataloader():
                batches.append(unpack_orbits(batch))
                if sum(len(batch["rgb"]) for batch in batches) >= self.config.orbits:
                    break
            self.batch = {
                name: torch.cat([batch[name] for batch in batches])[: self.config.orbits]
                for name in ("rgb", "alpha", "elevation_deg")
            }
            uids = [uid for batch in batches for uid in batch["uid"]]
            self.batch["uid"] = uids[: self.config.orbits]
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.batch.items()}


def view_scores(sampled: Tensor, true: Tensor) -> dict[str, float]:
    """Means over all views: PSNR (dB), SSIM, and LPIPS where its weights are installed.

    Args:
        sampled: [B, T, 3, H, W] in [0, 1].
        true: as `sampled`.
    """
    found, expected = sampled.flatten(0, 1).float(), true.flatten(0, 1).float()
    squared = (found - expected).square().mean((1, 2, 3)).clamp_min(1e-10)
    window = min(11, (min(found.shape[-2:]) - 1) // 2 * 2 + 1)
    ssim = structural_similarity_index_measure(
        found, expected, data_range=1.0, gaussian_kernel=False, kernel_size=window
    )
    scores = {
        "samples/psnr": float((-10 * squared.log10()).mean()),
        "samples/ssim": float(ssim),  # type: ignore[arg-type]
    }
    lpips = lpips_of(LpipsNetwork.vgg)
    if lpips is None or min(found.shape[-2:]) < lpips.architecture.min_size:
        return scores
    lpips = lpips.to(found.device)
    pairs = zip(found[:, None], expected[:, None], strict=True)  # one by one, to need no memory
    distances = [lpips(one, other).item() for one, other in pairs]
    lpips.cpu()
    return scores | {"samples/lpips": sum(distances) / len(distances)}


def picture(true: Tensor, sampled: Tensor) -> Tensor:
    """Every orbit's true views in one row and its sampled ones in the next.

    Args:
        true: [B, T, 3, H, W] in [0, 1].
        sampled: as `true`.

    Returns:
        [3, 2 B H, K W] in [0, 1], K views evenly around.
    """
    step = max(true.shape[1] // SHOWN_VIEWS, 1)
    rows = torch.stack([true[:, ::step], sampled[:, ::step]], dim=1)  # [B, 2, K, 3, H, W]
    return rows.permute(3, 0, 1, 4, 2, 5).flatten(1, 3).flatten(2, 3).float().cpu()


def video_frames(true: Tensor, sampled: Tensor) -> Iterator[np.ndarray]:
    """A turn of all objects side by side, their true views above the sampled ones.

    Args:
        true: [B, T, 3, H, W] in [0, 1].
        sampled: as `true`.

    Returns:
        T frames [2 H, B W, 3] of bytes.
    """
    rows = torch.stack([true, sampled]).float().cpu()  # [2, B, T, 3, H, W]
    turn = rows.permute(2, 0, 4, 1, 5, 3).flatten(3, 4).flatten(1, 2)  # [T, 2 H, B W, 3]
    return iter((turn.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def write_picture(path: Path, image: Tensor) -> None:
    """Write an image [3, H, W] in [0, 1] as PNG."""
    with atomic_path(path) as partial:
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(partial)


def log_pictures(trainer: pl.Trainer, image: Tensor, video: Path) -> None:
    """Send an image to TensorBoard, or it and the video to W&B."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image("samples", [image], trainer.global_step)
            logger.log_video("samples_video", [str(video)], trainer.global_step, format=["mp4"])
        else:
            logger.experiment.add_image("samples", image, trainer.global_step)
