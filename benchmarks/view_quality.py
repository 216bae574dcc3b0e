"""Stage 1 against repeating the reference image, stage 2 against bicubic upsampling.

    python benchmarks/view_quality.py --orbits data/orbits/val [--limit 100] [key=value ...]

Scores views 1-15 of every orbit (view 0 is given) by PSNR over white, mean over views and objects,
and by SSIM. The elevation is the true one. Prints a table and differences to the baselines.
"""

import torch
import torch.nn.functional as F

from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.data.orbit_dataset import OrbitDataset
from hi3d.evaluation.view_metrics import psnr, ssim
from hi3d.files import write_json
from hi3d.pipelines.image_to_3d import GenerateConfig
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.sampler import seeded_generator
from hi3d.progress import console, set_quiet, track
from hi3d.views import ReferenceImage

MAX_PSNR = 50.0
"""Identical images have no PSNR: white objects on white would decide the mean."""


def main() -> None:
    parser = make_parser(__doc__.split("\n")[0], "benchmarks/view_quality.py --orbits DIR")
    parser.add_argument("--orbits", required=True, metavar="DIR", help="validation orbits")
    parser.add_argument("--limit", type=int, help="score only so many, spread evenly")
    parser.add_argument("--stage1-only", action="store_true")
    parser.add_argument("--json", metavar="FILE", help="also write the scores of every object")
    arguments = parse_arguments(parser)
    config = load_config(
        GenerateConfig, arguments.config or "configs/generate.yaml", arguments.overrides
    )
    stage1 = load_pipeline(OrbitPipeline, config.stage1)
    stage2 = None if arguments.stage1_only else load_pipeline(RefinerPipeline, config.stage2)
    low = stage1.config.resolution
    high = stage2.config.resolution if stage2 else low
    dataset = OrbitDataset(arguments.orbits, high)
    chosen = torch.linspace(0, len(dataset) - 1, arguments.limit or len(dataset)).long().tolist()
    rows: dict[str, list[dict[str, float]]] = {}
    set_quiet(False)
    for index in track(chosen, "orbits"):
        item = dataset[index]
        truth = item["rgb"]
        reference = ReferenceImage(truth[0], item["alpha"][0])
        set_quiet(True)
        generator = seeded_generator(config.seed)
        orbit = stage1(reference, item["elevation_deg"].item(), config.orbit, generator).views
        small = F.interpolate(truth, (low, low), mode="area")
        results = {
            f"repeat the reference, {low}": (small[:1].expand_as(small), small),
            f"stage 1, {low}": (orbit.rgb, small),
        }
        if stage2:
            bicubic = F.interpolate(orbit.rgb, (high, high), mode="bicubic").clamp(0, 1)
            refined = stage2(orbit, reference, config.refiner, generator).rgb
            results[f"bicubic of stage 1, {high}"] = (bicubic, truth)
            results[f"stage 2, {high}"] = (refined, truth)
        set_quiet(False)
        for name, (predicted, target) in results.items():
            error = psnr(predicted[1:], target[1:]).clamp_max(MAX_PSNR)
            mse = (predicted[1:] - target[1:]).square().mean()
            scores = {"psnr": error.mean(), "ssim": ssim(predicted[1:], target[1:]).mean()}
            scores["mse"] = mse
            rows.setdefault(name, []).append({key: float(value) for key, value in scores.items()})
    console.print(
        "| views 1-15 | PSNR, mean of dB | PSNR of the mean error | SSIM |\n|---|---|---|---|"
    )
    means = {
        name: {key: sum(s[key] for s in scores) / len(scores) for key in scores[0]}
        for name, scores in rows.items()
    }
    for name, mean in means.items():
        pooled = -10 * torch.tensor(mean["mse"]).log10().item()
        console.print(f"| {name} | {mean['psnr']:.2f} | {pooled:.2f} | {mean['ssim']:.4f} |")
    names = list(means)
    for baseline, ours in zip(names[::2], names[1::2], strict=True):
        gain = means[ours]["psnr"] - means[baseline]["psnr"]
        console.print(f"{ours} over {baseline}: {gain:+.2f} dB")
    if arguments.json:
        content = {"config": config_to_dict(config), "mean": means, "objects": rows}
        write_json(arguments.json, content)


if __name__ == "__main__":
    run(main)
