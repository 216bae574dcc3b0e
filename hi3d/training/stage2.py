"""Stage 2: low-resolution orbit to high-resolution orbit (paper, Section 4.3)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.degradation.pipeline import degrade
from hi3d.diffusion.base_orbit import BaseOrbit
from hi3d.diffusion.sampling import OrbitCondition
from hi3d.diffusion.stage2_condition import stage2_condition
from hi3d.diffusion.unet import stage2_in_channels
from hi3d.diffusion.weights import load_network, load_networks
from hi3d.errors import InputError
from hi3d.training.diffusion_module import DiffusionModule
from hi3d.training.experiment import Stage2Experiment
from hi3d.training.module import Batch, take_orbits
from hi3d.training.scaling.stage1_orbits import Stage1Orbits, resized, sample_stage1


class Stage2Module(DiffusionModule):
    """Trains the refiner to denoise a sharp orbit given a degraded one, its depth and the photo."""

    experiment: Stage2Experiment
    pipeline = ("hi3d.pipelines.refiner", "RefinerPipeline")

    def in_channels(self, experiment: Stage2Experiment, latent_channels: int) -> int:
        """Noisy, image and orbit latents, and depth."""
        return stage2_in_channels(latent_channels, experiment.depth_conditioning)

    def load_frozen(self, experiment: Stage2Experiment) -> dict[str, Any]:  # type: ignore[override]
        """Stage 1's networks and, where depth is a condition, the depth model."""
        frozen = super().load_frozen(experiment)
        if not experiment.depth_conditioning:
            return frozen
        depth = load_networks(experiment.init_from, depth_estimator=experiment.depth_estimator)
        return {**frozen, **depth}

    def __init__(self, experiment: Stage2Experiment):
        """Args:
        experiment: as stage 1, with degradation, depth model and the share of stage-1 outputs.

        Raises:
            InputError: a model folder is missing or broken.
        """
        super().__init__(experiment)
        # In a dict so that it is neither trained, nor saved with the pipeline.
        self.stage1: dict[str, Any] = {}
        self.stage1_orbits = self.open_orbits(experiment)
        wanted = experiment.stage1_share > 0 and self.stage1_orbits is None
        if wanted and experiment.stage1 is not None:
            self.stage1 = self.load_stage1(experiment.stage1)

    def open_orbits(self, experiment: Stage2Experiment) -> Stage1Orbits | None:
        """The cached outputs of stage 1, if there are any.

        Raises:
            InputError: they are damaged, or orbits are augmented.
        """
        if experiment.stage1_orbits is None or experiment.stage1_share == 0:
            return None
        if type(self).augmented is not DiffusionModule.augmented:
            raise InputError(f"stage1_orbits: task {experiment.task} augments orbits, leave it out")
        return Stage1Orbits(experiment.stage1_orbits)

    def load_stage1(self, folder: str) -> dict[str, Any]:
        """The networks that make stage 1's orbits."""
        return {"unet": load_network(folder, "unet").requires_grad_(False)}

    @torch.no_grad()
    def coarse_orbit(self, batch: Batch) -> Tensor:
        """What stage 2 will see at inference: a degraded orbit, or one that stage 1 made.

        Returns:
            [B, V, 3, H, W] in [0, 1]; frame 0 is the clean reference.
        """
        config, share = self.experiment.degradation, self.experiment.stage1_share
        generators = self.generators("coarse_orbit", len(batch["rgb"]))
        draws = [torch.rand((), generator=generator) for generator in generators]
        made = [i for i, draw in enumerate(draws) if draw < share and self.can_make(batch, i)]
        orbit = batch["rgb"].clone()
        if made and self.stage1_orbits is not None:
            cached = self.stage1_orbits.orbits([batch["uid"][i] for i in made], orbit.shape[-1])
            orbit[made, 1:] = cached[:, 1:].to(orbit)
        elif made:
            picked = [generators[i] for i in made]
            orbit[made] = self.stage1_orbit(take_orbits(batch, made), picked)
        for i in set(range(len(orbit))) - set(made):
            true = take_orbits(batch, [i])
            orbit[i] = degrade(true["rgb"], true["alpha"], config, generators[i])[0]
        return orbit

    def can_make(self, batch: Batch, index: int) -> bool:
        """Whether there is stage 1's output for an orbit of the batch."""
        if self.stage1_orbits is not None:
            return batch["uid"][index] in self.stage1_orbits
        return bool(self.stage1)

    def stage1_orbit(self, batch: Batch, generators: list[torch.Generator]) -> Tensor:
        """Run stage 1 on the reference images, resized to this stage's resolution."""
        rgb, size = batch["rgb"], self.experiment.stage1_resolution
        small = F.interpolate(rgb[:, 0], (size, size), mode="area")
        networks = {name: network.to(self.device) for name, network in self.stage1.items()}
        orbit = sample_stage1(
            {**self.frozen, **networks},
            small,
            batch["elevation_deg"],
            rgb.shape[1],
            self.experiment,
            generators,
            self.stage1_base(small, batch, networks, generators),
        )
        return torch.cat([rgb[:, :1], resized(orbit, rgb.shape[-1])[:, 1:]], dim=1)

    def stage1_base(
        self,
        reference: Tensor,
        batch: Batch,
        networks: dict[str, Any],
        generators: list[torch.Generator],
    ) -> BaseOrbit | None:
        """`OrbitPipeline.base_orbit` of the stage 1 whose outputs are trained on; None for the
        paper's model.

        Args:
            reference: [B, 3, H, W] in [0, 1], at stage 1's resolution.
            batch: whose reference images these are.
            networks: of `load_stage1`.
            generators: one for each orbit, on the CPU, from which stage 1 draws the rest.
        """
        return None

    @torch.no_grad()
    def condition(self, batch: Batch) -> OrbitCondition:
        """Image latents, orbit latents, depth, embedding, elevation, without dropout."""
        orbit, base = self.coarse_and_base(batch)
        return stage2_condition(
            self.frozen["vae"],
            self.frozen["image_encoder"],
            getattr(self.frozen, "depth_estimator", None),
            batch["rgb"][:, 0],
            orbit,
            batch["elevation_deg"],
            self.noise_aug_strength(len(orbit)),
            base,
            self.generators("noise_aug", len(orbit)),
            self.experiment.frames_per_pass,
        )

    def coarse_and_base(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The coarse orbit, and as `RefinerPipeline.coarse_orbit` the video it is added to."""
        return self.coarse_orbit(batch), None
