"""The small model's measures on an orbit set: does it turn the object, and what do seeds change?

    python benchmarks/small_model.py --orbits data/orbits/val --output results/small \\
        [--limit 100] [--seeds 4] [--lpips [vgg16-397923af.pth]] [--consistency] \\
        [--objects FOLDER] [key=value ...]

Stage 1 against repeating the photo, stage 2 against bicubic upsampling. Scores views 1-15 of every
orbit (view 0 is given) by PSNR over white, by SSIM, with --lpips by LPIPS-VGG, and
by the share of views that are nearest to their own true view: blurring raises PSNR, only turning
the object raises the last. The elevation is the true one; the error of stage 1's own estimate is
printed, too. With seeds, the best of them over their mean, and how far their front views (22.5
degrees from the photo's) and side views lie from each other. With --consistency, how well splats of
the even views agree with splats of the odd ones, of stage 2's views and of the true ones at its
size. With --objects, the meshes of a folder of object files, their elevation given, against the
meshes of true views with the same settings (Chamfer distance and volume IoU, longest side 1). Every
orbit and every mesh is a file of the output folder: the same command goes on.
"""

import json
from collections.abc import Iterator, Sequence
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
from hi3d.evaluation.consistency import view_consistency
from hi3d.evaluation.runs.config import MethodConfig, TablesConfig
from hi3d.evaluation.runs.tables import run_tables
from hi3d.evaluation.score_table import summary
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
from hi3d.views import ReferenceImage, Views

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
    with_consistency: bool
    """Whether splats of half the views are compared with those of the others."""


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
    parser.add_argument(
        "--consistency", action="store_true", help="splats of odd views against even ones"
    )
    parser.add_argument("--objects", metavar="FOLDER", help="also meshes of these object files")
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
        arguments.consistency,
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
            "consistency": arguments.consistency,
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
    if arguments.objects:
        settings = (arguments.config or "configs/generate.yaml", arguments.overrides)
        tables = mesh_tables(arguments.objects, *settings, arguments.limit)
        report_meshes(tables, folder / "meshes")


def orbit_scores(item: dict[str, Any], models: Models) -> Scores:
    """The rows of one orbit, and `orbit`: what is of no row."""
    rows: Scores = {}
    orbit, refined = views_of(item, models)
    for name, predicted, target in predictions(item["rgb"], orbit.rgb, refined.rgb):
        rows[name] = scores(predicted, target)
        if models.lpips is not None:
            rows[name]["lpips"] = float(models.lpips(predicted[1:], target[1:]).mean())
    rows["orbit"] = {"elevation_error_deg": mean_of(elevation_error_deg(item, models.stage1))}
    if models.with_consistency:
        rows["orbit"] |= consistency_scores(refined, item)
    if models.num_seeds > 1:
        rows["orbit"] |= seed_scores(item, models)
    return rows


def views_of(item: dict[str, Any], models: Models) -> tuple[Views, Views]:
    """The orbit of stage 1 and that of stage 2, the elevation given."""
    config, generator = models.config, seeded_generator(models.config.seed)
    reference = ReferenceImage(item["rgb"][0], item["alpha"][0])
    elevation_deg = item["elevation_deg"].item()
    orbit = models.stage1(reference, elevation_deg, config.orbit, generator).views
    return orbit, models.stage2(orbit, reference, config.refiner, generator)


def predictions(
    truth: Tensor, orbit: Tensor, refined: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, predicted and true views [V, 3, H, W] in [0, 1]: each baseline, then its stage."""
    low, high = orbit.shape[-1], truth.shape[-1]
    small = F.interpolate(truth, (low, low), mode="area")
    yield f"repeat the reference, {low}", small[:1].expand_as(small), small
    yield f"stage 1, {low}", orbit, small
    bicubic = F.interpolate(orbit, (high, high), mode="bicubic").clamp(0, 1)
    yield f"bicubic of stage 1, {high}", bicubic, truth
    yield f"stage 2, {high}", refined, truth


def consistency_scores(refined: Views, item: dict[str, Any]) -> dict[str, float]:
    """PSNR of splats of the even views against those of the odd ones, of ours and of true views."""
    true = Views(item["rgb"], item["alpha"], refined.cameras)
    ours, best = (view_consistency(views)["c_psnr"] for views in (refined, true))
    return {"consistency": ours, "consistency_of_true_views": best}


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
    if "consistency" in others:
        below = others["consistency_of_true_views"] - others["consistency"]
        print(f"consistency below that of true views: {below:.2f} dB")


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


def mesh_tables(
    objects: str, config: str, overrides: Sequence[str], limit: int | None
) -> TablesConfig:
    """A run over object files: the chain, and as its ceiling the meshes of true views."""
    methods = {
        name: MethodConfig(kind, config, list(overrides))
        for name, kind in (("true views", "oracle"), ("small model", "generate"))
    }
    return TablesConfig(objects=objects, limit=limit, num_workers=0, methods=methods)


def report_meshes(config: TablesConfig, output: Path) -> None:
    """Print the scores of both, and their ratios."""
    found = summary(run_tables(config, output))
    print("| mesh | Chamfer distance | volume IoU 64³ | objects |")
    print("|---|---|---|---|")
    means = {}
    for name, method in found.items():
        scores = [method.scores[key] for key in ("chamfer", "iou64")]
        means[name] = [float("nan") if s.mean is None else s.mean for s in scores]
        cells = [
            f"{mean:.4f} ± {score.error_objects or 0:.4f}"
            for mean, score in zip(means[name], scores, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} | {scores[0].num_objects} |")
    ceiling, ours = means.values()
    names = ("Chamfer distance", "volume IoU")
    ratios = [f"{name} {b / a:.2f}x" for name, a, b in zip(names, ceiling, ours, strict=True)]
    print(f"small model over true views: {', '.join(ratios)}")


if __name__ == "__main__":
    run(main)
