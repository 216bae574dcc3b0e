"""From a training's config to a folder of its latents."""

from pathlib import Path

import torch

from hi3d.diffusion.weights import load_networks
from hi3d.orbits.decoding import unpack_orbits
from hi3d.progress import track
from hi3d.training.datamodule import OrbitDataModule
from hi3d.training.experiment import DiffusionExperiment
from hi3d.training.scaling.latent_cache import cache_key, write_latents


def cache_latents(experiment: DiffusionExperiment, output: Path) -> int:
    """Encode every training orbit, on a GPU if there is one; torchrun's processes share the work.

    Returns:
        Orbits that this process has written.

    Raises:
        InputError: data, model or output folder are wrong.
    """
    config = experiment.data
    data = OrbitDataModule(config, load_depth=False, seed=experiment.seed)
    data.setup("fit")
    loader = data.in_order()
    rank, num_gpus = loader.share.rank, torch.cuda.device_count()
    device = f"cuda:{rank % num_gpus}" if num_gpus else "cpu"
    vae = load_networks(experiment.init_from, vae=experiment.vae)["vae"].to(device)
    key = cache_key(vae, config.resolution, config.num_views)
    batches = (
        unpack_orbits({k: v.to(device) if k == "rgba" else v for k, v in batch.items()})
        for batch in track(loader, "latents", len(loader))
    )
    return write_latents(vae, batches, output, key, rank, experiment.frames_per_pass)
