"""Stage 1 against repeating the reference image, stage 2 against bicubic upsampling.

    python benchmarks/view_quality.py --orbits data/orbits/val [--limit 100] [key=value ...]

Scores views 1-15 of every orbit (view 0 is given) by PSNR over white, mean over views and objects,
by SSIM, and by the share of views that are nearest to their own true view: blurring raises the
first, only turning the object raises the last. The elevation is the true one; the error of stage
1's own estimate is printed, too. Prints a table and differences to the baselines.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.data.dataset import OrbitDataset
from hi3d.errors import InputError
from hi3d.evaluation.view_metrics import psnr, ssim
from hi3d.files import write_json
from hi3d.nano.grid.measures import own_azimuth
from hi3d.pipelines.image_to_3d import GenerateConfig
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import seeded_generator
from hi3d.progress import set_quiet, track
from hi3d.views import ReferenceImage

MAX_PSNR = 50.0
"""Identical images have no PSNR: white objects on white would decide the mean."""


def main() -> None:
    parser = make_parser(__doc__.split("\n")[0], "benchmarks/view_quality.py --orbits DIR")
    parser.add_argument("--orbits", required=True, metavar="DIR", help="validation orbits")
    parser.add_argument("--limit", type=int, metavar="N", help="score only N, spread evenly")
    parser.add_argument("--stage1-only", action="store_true", help="leave stage 2 out")
    parser.add_argument("--json", metavar="FILE", help="also write the scores of every object")
    arguments = parse_arguments(parser)
    if arguments.limit is not None and arguments.limit < 1:
        raise InputError(f"--limit {arguments.limit}: give 1 or more")
    config = load_config(
        GenerateConfig, arguments.config or "configs/generate.yaml", arguments.overrides
    )
    stage1 = load_pipeline(OrbitPipeline, config.stage1)
    stage2 = None if arguments.stage1_only else load_pipeline(RefinerPipeline, config.stage2)
    dataset = OrbitDataset(arguments.orbits, (stage2 or stage1).config.resolution)
    count = min(arguments.limit or len(dataset), len(dataset))
    chosen = torch.linspace(0, len(dataset) - 1, count).long().tolist()
    rows: dict[str, list[dict[str, float]]] = {}
    elevation_errors: list[float] = []
    for index in track(chosen, "orbits"):
        set_quiet(True)  # the bars of the stages
        for name, predicted, target in predictions(dataset[index], stage1, stage2, config):
            rows.setdefault(name, []).append(scores(predicted, target))
        elevation_errors += elevation_error_deg(dataset[index], stage1)
        set_quiet(arguments.quiet)
    means = {
        name: {key: mean_of([s[key] for s in of_objects]) for key in of_objects[0]}
        for name, of_objects in rows.items()
    }
    show(means)
    if elevation_errors:
        mean = sum(elevation_errors) / len(elevation_errors)
        print(f"elevation estimated by stage 1: {mean:.1f} degrees off on average")
    if arguments.json:
        content = {"config": config_to_dict(config), "mean": means, "objects": rows}
        write_json(arguments.json, content)


def predictions(
    item: dict[str, Any],
    stage1: OrbitPipeline,
    stage2: RefinerPipeline | None,
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
    if stage2 is not None:
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


def show(means: dict[str, dict[str, float]]) -> None:
    """Print the table, and what each stage gains over its baseline."""
    print("| views 1-15 | PSNR, mean of dB | PSNR of the mean squared error | SSIM | own azimuth |")
    print("|---|---|---|---|---|")
    for name, mean in means.items():
        pooled = -10 * torch.tensor(mean["mse"]).log10().item()
        print(
            f"| {name} | {mean['psnr']:.2f} | {pooled:.2f} | {mean['ssim']:.4f} "
            f"| {mean['own_azimuth']:.3f} |"
        )
    names = list(means)
    for baseline, ours in zip(names[::2], names[1::2], strict=True):
        gain = means[ours]["psnr"] - means[baseline]["psnr"]
        print(f"{ours} over {baseline}: {gain:+.2f} dB")


if __name__ == "__main__":
    run(main)
