"""The small model's measures on an orbit set: does it turn the object, and what do seeds change?

    python benchmarks/small_model.py --orbits data/orbits/val --output results/small \\
        [--limit 100] [--seeds 4] [--lpips [vgg16-397923af.pth]] [key=value ...]

Stage 1 against repeating the photo, stage 2 against bicubic upsampling. Scores views 1-15 of every
orbit (view 0 is given) by PSNR over white, by SSIM, with --lpips by LPIPS-VGG, and
by the share of views that are nearest to their own true view: blurring raises PSNR, only turning
the object raises the last. The elevation is the true one; the error of stage 1's own estimate is
printed, too. With seeds, the best of them over their mean, and how far their front views (22.5
degrees from the photo's) and side views lie from each other. Every orbit is a file of the output
folder: the same command goes on.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import keep_settings
from torch import Tensor

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.data.dataset import OrbitDataset
from hi3d.errors import InputError
from hi3d.evaluation.view_metrics import psnr, ssim
from hi3d.files import write_json
from hi3d.images.lpips import Lpips, LpipsConfig
from hi3d.nano.grid.measures import own_azimuth
from hi3d.nano.grid.measures import psnr as views_psnr
from hi3d.pipelines.image_to_3d import GenerateConfig
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import seeded_generator
from hi3d.progress import set_quiet, track
from hi3d.views import ReferenceImage

INSTALLED = "installed"
MAX_PSNR = 50.0
"""Identical images have no PSNR: white objects on white would decide the mean."""

Scores = dict[str, dict[str, float]]
"""By row, then by measure."""


@dataclass(frozen=True)
class Models:
    """What is measured, and with what."""

    stage1: OrbitPipeline
    stage2: RefinerPipeline
    config: GenerateConfig
    lpips: Lpips | None
    num_seeds: int
    """1 leaves the comparison of seeds out."""


def main() -> None:
    parser = make_parser(__doc__.split("\n")[0], "benchmarks/small_model.py --orbits DIR")
    parser.add_argument("--orbits", required=True, metavar="DIR", help="orbits to score")
    parser.add_argument("--output", required=True, metavar="DIR", help="scores of every orbit")
    parser.add_argument("--limit", type=int, metavar="N", help="score only N, spread evenly")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="compare N seeds")
    parser.add_argument(
        "--lpips",
        metavar="FILE",
        nargs="?",
        const=INSTALLED,
        help="also LPIPS-VGG, by torchvision's file or else by the installed package's weights",
    )
    arguments = parse_arguments(parser)
    if min(arguments.limit or 1, arguments.seeds) < 1:
        raise InputError("--limit and --seeds: give 1 or more")
    config = load_config(
        GenerateConfig, arguments.config or "configs/generate.yaml", arguments.overrides
    )
    backbone = None if arguments.lpips == INSTALLED else arguments.lpips
    lpips = Lpips(LpipsConfig(backbone=backbone)) if arguments.lpips else None
    models = Models(
        load_pipeline(OrbitPipeline, config.stage1),
        load_pipeline(RefinerPipeline, config.stage2),
        config,
        lpips,
        arguments.seeds,
    )
    dataset = OrbitDataset(arguments.orbits, models.stage2.config.resolution)
    count = min(arguments.limit or len(dataset), len(dataset))
    folder = Path(arguments.output)
    keep_settings(
        folder,
        {
            "orbits": arguments.orbits,
            "seeds": arguments.seeds,
            "lpips": arguments.lpips,
            "config": config_to_dict(config),
        },
    )
    results = []
    for index in track(torch.linspace(0, len(dataset) - 1, count).long().tolist(), "orbits"):
        path = folder / f"{index:06d}.json"
        if not path.is_file():
            set_quiet(True)  # the bars of the stages
            write_json(path, orbit_scores(dataset[index], models))
            set_quiet(arguments.quiet)
        results.append(json.loads(path.read_text()))
    report(results)


def orbit_scores(item: dict[str, Any], models: Models) -> Scores:
    """The rows of one orbit, and `orbit`: what is of no row."""
    rows: Scores = {}
    for name, predicted, target in predictions(item, models.stage1, models.stage2, models.config):
        rows[name] = scores(predicted, target)
        if models.lpips is not None:
            rows[name]["lpips"] = float(models.lpips(predicted[1:], target[1:]).mean())
    rows["orbit"] = {"elevation_error_deg": mean_of(elevation_error_deg(item, models.stage1))}
    if models.num_seeds > 1:
        rows["orbit"] |= seed_scores(item, models)
    return rows


def predictions(
    item: dict[str, Any],
    stage1: OrbitPipeline,
    stage2: RefinerPipeline,
    config: GenerateConfig,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, predicted and true views [V, 3, H, W] in [0, 1]: each baseline, then its stage."""
    truth, elevation_deg = item["rgb"], item["elevation_deg"].item()
    reference = ReferenceImage(truth[0], item["alpha"][0])
    generator = seeded_generator(config.seed)
    orbit = stage1(reference, elevation_deg, config.orbit, generator).views
    low, high = orbit.cameras.height, truth.shape[-1]
    small = F.interpolate(truth, (low, low), mode="area")
    yield f"repeat the reference, {low}", small[:1].expand_as(small), small
    yield f"stage 1, {low}", orbit.rgb, small
    bicubic = F.interpolate(orbit.rgb, (high, high), mode="bicubic").clamp(0, 1)
    yield f"bicubic of stage 1, {high}", bicubic, truth
    yield f"stage 2, {high}", stage2(orbit, reference, config.refiner, generator).rgb, truth


def mean_of(values: list[float]) -> float:
    """The mean of those that are numbers: two white views have no range, and so no SSIM."""
    return float(torch.tensor(values).nanmean())


def elevation_error_deg(item: dict[str, Any], stage1: OrbitPipeline) -> list[float]:
    """Of stage 1's estimate, empty where it makes none."""
    size = (stage1.config.resolution,) * 2
    rgba = torch.cat([item["rgb"][0], item["alpha"][0]])[None]
    with torch.no_grad():
        estimate = stage1.estimated_elevation_deg(F.interpolate(rgba, size, mode="area"))
    return [] if estimate is None else [abs(float(estimate - item["elevation_deg"]))]


def scores(predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Means over views 1, 2, ... of [V, 3, H, W] in [0, 1]."""
    own = float(own_azimuth(predicted[None], target[None]))
    predicted, target = predicted[1:], target[1:]
    return {
        "own_azimuth": own,
        "psnr": float(psnr(predicted, target).clamp_max(MAX_PSNR).mean()),
        "ssim": float(ssim(predicted, target).nanmean()),
        "mse": float((predicted - target).square().mean()),
    }


def seed_scores(item: dict[str, Any], models: Models) -> dict[str, float]:
    """Stage 1 with several seeds: the best one's gain, and front views against each other in dB."""
    reference = ReferenceImage(item["rgb"][0], item["alpha"][0])
    elevation_deg = item["elevation_deg"].item()
    orbits = torch.stack(
        [
            models.stage1(
                reference, elevation_deg, models.config.orbit, seeded_generator(seed)
            ).views.rgb
            for seed in range(models.num_seeds)
        ]
    )
    truth = F.interpolate(item["rgb"], orbits.shape[-2:], mode="area")
    gains = views_psnr(orbits, truth)[:, 1:].mean(1)
    return {
        "best_seed_gain": float(gains.max() - gains.mean()),
        "front_psnr": pairwise_psnr(orbits[:, [1, -1]]),
        "side_psnr": pairwise_psnr(orbits[:, 4:-3]),
    }


def pairwise_psnr(orbits: Tensor) -> float:
    """Mean PSNR of the views of each two of N orbits [N, V, 3, H, W]."""
    first, second = torch.triu_indices(len(orbits), len(orbits), 1)
    return float(views_psnr(orbits[first], orbits[second]).mean())


def report(results: list[Scores]) -> None:
    """Print the means over orbits."""
    means = {
        row: {key: mean_of([of_one[row][key] for of_one in results]) for key in results[0][row]}
        for row in results[0]
    }
    others = means.pop("orbit")
    show(means)
    for key, value in others.items():
        print(f"{key.replace('_', ' ')}: {value:.2f}")


def show(means: dict[str, dict[str, float]]) -> None:
    """Print the table, and what each stage gains over its baseline."""
    print(
        "| views 1-15 | PSNR, mean of dB | of the mean squared error | SSIM | LPIPS | own azimuth |"
    )
    print("|---|---|---|---|---|---|")
    for name, mean in means.items():
        pooled = -10 * torch.tensor(mean["mse"]).log10().item()
        lpips = f"{mean['lpips']:.4f}" if "lpips" in mean else ""
        print(
            f"| {name} | {mean['psnr']:.2f} | {pooled:.2f} | {mean['ssim']:.4f} | {lpips} "
            f"| {mean['own_azimuth']:.3f} |"
        )
    names = list(means)
    for baseline, ours in zip(names[::2], names[1::2], strict=True):
        gain = {key: means[ours][key] - means[baseline][key] for key in means[ours]}
        lpips = f", LPIPS {gain['lpips']:+.4f}" if "lpips" in gain else ""
        print(f"{ours} over {baseline}: {gain['psnr']:+.2f} dB{lpips}")


if __name__ == "__main__":
    run(main)
