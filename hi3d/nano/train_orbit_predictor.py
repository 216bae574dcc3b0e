"""Training of the orbit predictor, which gives small models their conditioning video."""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hi3d.diffusion.conditioning import scaled_latents
from hi3d.diffusion.weights import load_network, write_model_index
from hi3d.nano.augmentation import augment_orbits
from hi3d.nano.experiment import OrbitPredictorExperiment
from hi3d.nano.orbit_predictor import OrbitPredictor, predict_orbit, repeat_around
from hi3d.orbits.decoding import unpack_orbits
from hi3d.progress import track
from hi3d.training.losses import loss_decibel
from hi3d.training.module import Batch, TrainingModule

MAX_PSNR = 50.0
"""Views that are equal to the reference have no PSNR."""


class OrbitPredictorModule(TrainingModule):
    """Trains `OrbitPredictor` on the PSNR of the views."""

    experiment: OrbitPredictorExperiment
    network: OrbitPredictor

    def __init__(self, experiment: OrbitPredictorExperiment):
        """Args:
        experiment: `vae` is the folder of the frozen VAE, `orbit_predictor` says the size.

        Raises:
            InputError: the folder of the VAE is missing or broken.
        """
        config, vae = experiment.orbit_predictor, load_network(experiment.vae, "vae")
        side = experiment.data.resolution
        with torch.no_grad():
            latents = scaled_latents(vae, torch.ones(1, 1, 3, side, side))
        network = OrbitPredictor(
            latents.shape[2],
            latents.shape[3],
            hidden_size=config.hidden_size,
            num_blocks=config.num_blocks,
            rank=config.rank,
            dropout=config.dropout,
        )
        super().__init__(experiment, network)
        self.freeze(vae=vae)

    def on_fit_start(self) -> None:
        """Begin with the leading patterns of the first training batches."""
        super().on_fit_start()
        if self.trainer.global_step > 0:
            return
        num_batches = self.experiment.orbit_predictor.basis_batches
        loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        moment = torch.zeros(())
        for batch in track(islice(loader, num_batches), "patterns", num_batches):
            _, target = self.pairs(unpack_orbits(batch)["rgb"].to(self.device))
            rows = target.flatten(2).flatten(0, 1)
            moment = moment + rows.T @ rows
        vectors = torch.linalg.eigh(moment.double())[1].flip(1)
        with torch.no_grad():
            rank = self.network.config.rank
            self.network.patterns.weight.copy_(vectors[:, :rank].to(self.network.patterns.weight))
        if self.average is not None:  # the average was begun from random patterns
            self.average.restart()

    @torch.no_grad()
    def pairs(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Reference latents and the differences that the network is to say.

        Args:
            rgb: [B, T, 3, H, W] orbits whose frame 0 is the reference.

        Returns:
            [B, C, h, w] and [B, T / 2, C, h, w].
        """
        num_frames = rgb.shape[1]
        near = rgb[:, : num_frames // 2 + 1]
        base = repeat_around(rgb[:, 0], num_frames)[:, : near.shape[1]]
        base_latents = scaled_latents(self.frozen["vae"], base)
        difference = scaled_latents(self.frozen["vae"], near) - base_latents
        return base_latents[:, 0], difference[:, 1:]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step, several views of each orbit as the reference."""
        config = self.experiment.orbit_predictor
        generators = self.generators("augmentation", len(batch["rgb"]))
        batch = augment_orbits(
            batch, config.mirror_probability, config.permute_colors_probability, generators
        )
        rgb = batch["rgb"]
        order = torch.randperm(rgb.shape[1], generator=self.generator("starts"))
        starts = order[: config.starts_per_orbit].tolist()
        orbits = torch.cat([rgb.roll(-start, 1) for start in starts])
        latents, target = self.pairs(orbits)
        predicted = self.network(latents, batch["elevation_deg"].repeat(len(starts)))
        # Orthonormal components: the latents' squared error is that of the pixels in [-1, 1].
        scale = self.frozen["vae"].config.scaling_factor
        squared = ((predicted - target) / (2 * scale)).square().sum((2, 3, 4))
        first, last = config.error_floors
        done = self.trainer.global_step / self.experiment.trainer.max_steps
        floor = first ** (1 - done) * last**done
        loss = loss_decibel(squared / rgb[0, 0].numel(), floor)
        self.log_losses("train", {"loss_decibel": loss}, len(rgb))
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """PSNR over views 1 to T - 1, and of repeating the reference image."""
        rgb = batch["rgb"]
        predicted = predict_orbit(
            self.frozen["vae"], self.network, rgb[:, 0], batch["elevation_deg"]
        )

        def psnr(frames: Tensor) -> Tensor:
            squared = (frames - rgb)[:, 1:].square().mean((2, 3, 4))
            return (-10 * squared.log10()).clamp_max(MAX_PSNR).mean()

        losses = {"psnr": psnr(predicted), "psnr_repeat": psnr(rgb[:, :1].expand_as(rgb))}
        losses["psnr_gain"] = losses["psnr"] - losses["psnr_repeat"]
        self.log_losses("val", losses, len(rgb))

    def export(self, folder: Path, network: Any) -> None:
        """Write `orbit_predictor/`."""
        network.save_pretrained(folder / "orbit_predictor")
        write_model_index(folder, {"orbit_predictor": network})
