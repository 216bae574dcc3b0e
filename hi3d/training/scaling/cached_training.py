"""From a training's config to a folder of its latents, or of stage 1's outputs for it."""

from dataclasses import replace
from pathlib import Path

import torch

from hi3d.data.loader import OrbitLoader
from hi3d.diffusion.weights import load_network, load_networks
from hi3d.errors import InputError
from hi3d.orbits.decoding import unpack_orbits
from hi3d.progress import track
from hi3d.training.datamodule import OrbitDataModule
from hi3d.training.experiment import DataConfig, DiffusionExperiment, Stage2Experiment
from hi3d.training.random_state import draw_generator
from hi3d.training.scaling.latent_cache import cache_key, write_latents
from hi3d.training.scaling.stage1_orbits import OrbitWriter, sample_stage1, settings_of


def cache_latents(experiment: DiffusionExperiment, output: Path) -> int:
    """Encode every training orbit, on a GPU if there is one; torchrun's processes share the work.

    Returns:
        Orbits that this process has written.

    Raises:
        InputError: data, model or output folder are wrong.
    """
    config = experiment.data
    loader, device = orbits_in_order(config, experiment.seed)
    rank = loader.share.rank
    vae = load_networks(experiment.init_from, vae=experiment.vae)["vae"].to(device)
    key = cache_key(vae, config.resolution, config.num_views)
    batches = (
        unpack_orbits({k: v.to(device) if k == "rgba" else v for k, v in batch.items()})
        for batch in track(loader, "latents", len(loader))
    )
    return write_latents(vae, batches, output, key, rank, experiment.frames_per_pass)


def orbits_in_order(config: DataConfig, seed: int) -> tuple[OrbitLoader, str]:
    """The training orbits of this process, once, and its device."""
    data = OrbitDataModule(config, load_depth=False, seed=seed)
    data.setup("fit")
    loader = data.in_order()
    num_gpus = torch.cuda.device_count()
    return loader, f"cuda:{loader.share.rank % num_gpus}" if num_gpus else "cpu"


@torch.no_grad()
def cache_stage1_orbits(experiment: Stage2Experiment, output: Path) -> int:
    """Sample stage 1 for every training orbit; a run that was stopped goes on.

    The noise of an orbit follows from its name, so that the number of processes changes nothing.

    Returns:
        Orbits that this process has sampled.

    Raises:
        InputError: data, models or output folder are wrong, or it holds other settings' orbits.
    """
    if not isinstance(experiment, Stage2Experiment) or experiment.stage1 is None:
        raise InputError("no stage 1 given: take a config of stage 2 and set stage1=FOLDER")
    size, seed = experiment.stage1_resolution, experiment.seed
    loader, device = orbits_in_order(replace(experiment.data, resolution=size), seed)
    writer = OrbitWriter(output, settings_of(experiment), loader.share.rank)
    parts = {"vae": experiment.vae, "image_encoder": experiment.image_encoder}
    networks = load_networks(experiment.init_from, **parts)
    networks["unet"] = load_network(experiment.stage1, "unet")
    networks = {name: network.to(device).eval() for name, network in networks.items()}
    count = 0
    for batch in track(loader, "stage-1 orbits", len(loader)):
        new = [i for i, uid in enumerate(batch["uid"]) if uid not in writer.known]
        if not new:
            continue
        orbits = unpack_orbits({k: v.to(device) if k == "rgba" else v for k, v in batch.items()})
        rgb, uids = orbits["rgb"][new], [batch["uid"][i] for i in new]
        with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
            frames = sample_stage1(
                networks,
                rgb[:, 0],
                orbits["elevation_deg"][new].to(device),
                rgb.shape[1],
                experiment,
                [draw_generator(seed, "stage1_orbits", uid) for uid in uids],
            )
        for uid, orbit in zip(uids, frames, strict=True):
            writer.add(uid, orbit.float())
        count += len(new)
    writer.flush()
    return count
