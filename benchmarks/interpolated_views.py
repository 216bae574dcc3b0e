"""Do interpolated views help the surface? M = 0, 16, 32, 48 as in the paper's Table 4.

    python benchmarks/interpolated_views.py OBJECT ... --output DIR [--summarise] [key=value ...]

Each object is rendered from 16 sides at elevation 20. NeuS is fitted to these views and to M views
between them, which come from splats that start at the visual hull and know nothing of that NeuS.
The given views are the renders themselves (oracle), or renders perturbed as generated views are
(perturbed): smooth warps of up to 1 % of the image, shifts of colour and blur, different in every
view and drawn anew for every seed. The splats are fitted once to the views of an object, kind and
seed, and serve all M.

Rays are equal per view: every view, given or interpolated, has `rays_per_view` rays in a step on
average, so a step has (16 + M) times as many. The number of steps is the same for all M. Three
controls say what a difference is due to: `0, more rays` is M = 0 with the rays of M = 16; `16 true`
takes unperturbed renders where M = 16 has views of the splats, as perfect splats would give; and in
`16, weight 0.3` the interpolated views have 0.3 of the weight of the given ones.

Scores are Chamfer distances (whole surface; seen from the orbit) and IoU at 128^3. A mean is over
the objects; its standard error is over the seeds, and says nothing about other objects. Differences
to M = 0 are taken within object, kind and seed. With five seeds a 95 % interval is 2.8 standard
errors to each side. A run that was stopped goes on where it was; --summarise only reads. Writes
`results.json` and `results.md`.

The defaults are small, 128 x 128 pixels and a grid of 96^3, so that three objects, 210 fits, take
about 70 minutes on one core.
"""

import functools
import itertools
import json
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from reconstruction import (
    ELEVATION_DEG,
    GRIDS,
    SEEN_RESOLUTION,
    ground_truth,
    iou,
    keep_settings,
)
from splats import perturb
from torch import Tensor

from hi3d.assets.load import load_object
from hi3d.assets.parts import RenderObject
from hi3d.cameras import between_views, orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import chamfer_distance, inside_grid, seen_chamfer_distance
from hi3d.evaluation.view_metrics import psnr
from hi3d.files import atomic_path, write_json
from hi3d.mesh import SurfaceMesh
from hi3d.pipelines.views_to_mesh import fit_splats_from_hull
from hi3d.progress import console
from hi3d.rendering.rasterizer import render_views
from hi3d.splats import GaussianSplats
from hi3d.splatting.fit import SplatConfig, render_between_views
from hi3d.surface.meshing import MeshingConfig, extract_mesh
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.fit import fit_neus
from hi3d.views import Views, concatenate_views

KINDS = ("oracle", "perturbed")
CONTROL_VIEWS = 16  # M of the controls
LOW_WEIGHT = 0.3
VOLUME_GRID = GRIDS["IoU128"]
SCORES = ("Chamfer", "seen Chamfer", "IoU128")


@dataclass(frozen=True)
class Variant:
    """One way to feed NeuS."""

    label: str
    num_views: int
    """M."""
    rays_of: int
    """A step has the rays of this M."""
    true: bool = False
    """Whether the views between are renders of the object, not of the splats."""
    weight: float = 1.0
    """Of the views between, where the given ones have 1."""


BASELINE = Variant("0", 0, 0)
CONTROLS = [
    Variant("0, more rays", 0, CONTROL_VIEWS),
    Variant(f"{CONTROL_VIEWS} true", CONTROL_VIEWS, CONTROL_VIEWS, true=True),
    Variant(
        f"{CONTROL_VIEWS}, weight {LOW_WEIGHT}", CONTROL_VIEWS, CONTROL_VIEWS, weight=LOW_WEIGHT
    ),
]


@dataclass
class InterpolatedViewsConfig:
    """Settings of the benchmark."""

    seeds: int = 5
    """Seeds 0 to this less one: of perturbation, splats and NeuS."""
    num_views: list[int] = field(default_factory=lambda: [16, 32, 48])
    """M, beside 0."""
    controls: bool = True
    resolution: int = 128
    """Side of the views in pixels."""
    rays_per_view: int = 128
    """Of one step, on average."""
    warp: float = 0.01
    """Largest displacement of a warp, as a share of the image's side."""
    color_shift: float = 0.08
    """Largest change of a colour channel's gain, and half of it of its offset."""
    splats: SplatConfig = field(
        default_factory=lambda: SplatConfig(steps=400, num_initial=8000, max_splats=12000)
    )
    neus: NeusConfig = field(
        default_factory=lambda: NeusConfig(steps=400, resolutions=[32, 64, 96])
    )
    """Its `rays_per_step` is not used."""
    meshing: MeshingConfig = field(default_factory=MeshingConfig)

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.rays_per_view < 1 or min(self.num_views, default=1) < 1:
            raise InputError("seeds, rays_per_view and every one of num_views must be at least 1")

    def variants(self) -> list[Variant]:
        """The baseline first."""
        between = [Variant(str(number), number, number) for number in self.num_views]
        return [BASELINE, *between, *(CONTROLS if self.controls else [])]


@functools.lru_cache(maxsize=4)
def loaded(path: Path) -> tuple[RenderObject, SurfaceMesh, Tensor]:
    """An object, its mesh, and what of the volume grid lies inside."""
    truth = ground_truth(path)
    return load_object(path), truth, inside_grid(truth, *VOLUME_GRID)


def given_views(path: Path, kind: str, seed: int, config: InterpolatedViewsConfig) -> Views:
    """The 16 views of an object, of one of `KINDS`."""
    views = render_views(loaded(path)[0], orbit_cameras(ELEVATION_DEG, config.resolution)).views
    if kind == "oracle":
        return views
    generator = torch.Generator().manual_seed(seed)
    return perturb(views, config.warp, config.color_shift, generator)


def all_views(path: Path, views: Views, splats: GaussianSplats, variant: Variant) -> Views:
    """The given views and those between them that a variant adds."""
    if variant.true:
        between = render_views(
            loaded(path)[0], between_views(views.cameras, variant.num_views)
        ).views
    else:
        between = render_between_views(splats, views.cameras, variant.num_views)
    return concatenate_views(views, between)


def measure(
    path: Path,
    views: Views,
    splats: GaussianSplats,
    variant: Variant,
    seed: int,
    config: InterpolatedViewsConfig,
) -> dict[str, float]:
    """Fit NeuS to views and those a variant adds, and score its mesh."""
    _, truth, inside = loaded(path)
    inputs = all_views(path, views, splats, variant)
    weights = torch.ones(len(inputs))
    weights[len(views) :] = variant.weight
    rays = config.rays_per_view * (len(views) + variant.rays_of)
    start = time.process_time()
    surface = fit_neus(inputs, replace(config.neus, rays_per_step=rays), seed, weights)
    seconds = time.process_time() - start
    mesh = extract_mesh(surface, config.meshing, views.cameras)
    seen_cameras = views.cameras.resized(SEEN_RESOLUTION, SEEN_RESOLUTION)
    return {
        "Chamfer": chamfer_distance(mesh, truth),
        "seen Chamfer": seen_chamfer_distance(mesh, truth, seen_cameras),
        "IoU128": iou(inside_grid(mesh, *VOLUME_GRID), inside),
        "NeuS CPU s": seconds,
    }


def measure_all(paths: list[Path], output: Path, config: InterpolatedViewsConfig) -> None:
    """Do what is not there yet, seed by seed, so that what is there is balanced at any time."""
    for seed, path, kind in itertools.product(range(config.seeds), paths, KINDS):
        folder = output / path.stem
        missing = [v for v in config.variants() if not run_path(folder, kind, seed, v).is_file()]
        if not missing:
            continue
        views = given_views(path, kind, seed, config)
        splats_path = folder / f"{kind}, seed {seed}.ply"
        if not splats_path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            fit_splats_from_hull(views, config.splats, seed).save_ply(splats_path)
        splats = GaussianSplats.load_ply(splats_path)
        true = render_views(loaded(path)[0], between_views(views.cameras, CONTROL_VIEWS)).rgb
        shown = render_between_views(splats, views.cameras, CONTROL_VIEWS)
        splats_psnr = psnr(shown.rgb, true).mean().item()
        for variant in missing:
            scores = measure(path, views, splats, variant, seed, config)
            scores["splats PSNR"] = splats_psnr
            write_json(run_path(folder, kind, seed, variant), scores)
            console.print(
                f"seed {seed}, {path.stem}, {kind}, M = {variant.label}: Chamfer "
                f"{scores['Chamfer']:.5f}, {scores['NeuS CPU s']:.1f} CPU s"
            )
        summarise(paths, output, config)


def run_path(folder: Path, kind: str, seed: int, variant: Variant) -> Path:
    """Where the scores of one fit are kept."""
    return folder / f"{kind}, seed {seed}, M = {variant.label}.json"


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of scores [seeds, objects], and the standard error of it over seeds.

    The error is NaN for a single seed.
    """
    by_seed = values.double().mean(1)
    mean, num_seeds = by_seed.mean().item(), len(by_seed)
    if num_seeds < 2:
        return mean, math.nan
    return mean, by_seed.std().item() / math.sqrt(num_seeds)


def collect(
    paths: list[Path], output: Path, config: InterpolatedViewsConfig, kind: str, score: str
) -> dict[str, Tensor]:
    """Scores [seeds, objects] of each variant, of the seeds that are complete."""
    found: dict[str, list[list[float]]] = {v.label: [] for v in config.variants()}
    for seed in range(config.seeds):
        files = {
            v.label: [run_path(output / path.stem, kind, seed, v) for path in paths]
            for v in config.variants()
        }
        if all(file.is_file() for row in files.values() for file in row):
            for label, row in files.items():
                found[label].append([json.loads(file.read_text())[score] for file in row])
    return {label: torch.tensor(rows).reshape(-1, len(paths)) for label, rows in found.items()}


def table(scores: dict[str, dict[str, Tensor]]) -> list[str]:
    """Lines of a Markdown table: each score with its error and its difference to M = 0.

    Args:
        scores: by name, by variant, [seeds, objects].
    """
    lines = [
        f"| M | {' | '.join(f'{name} | difference to M = 0' for name in scores)} |",
        "|---" + "|---:" * 2 * len(scores) + "|",
    ]
    for label in next(iter(scores.values())):
        cells = []
        for of_variants in scores.values():
            values = of_variants[label]
            mean, error = mean_and_error(values)
            cells.append(f"{mean:.5f} ± {error:.5f}")
            mean, error = mean_and_error(values - of_variants[BASELINE.label])
            cells.append("" if label == BASELINE.label else f"{mean:+.5f} ± {error:.5f}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def summarise(paths: list[Path], output: Path, config: InterpolatedViewsConfig) -> list[str]:
    """Write the tables of the seeds that are complete, and return their lines."""
    lines, numbers = [], {}
    for kind in KINDS:
        scores = {name: collect(paths, output, config, kind, name) for name in SCORES}
        seeds = len(scores["Chamfer"][BASELINE.label])
        if seeds == 0:
            continue
        quality = collect(paths, output, config, kind, "splats PSNR")[BASELINE.label].mean()
        lines += ["", f"{kind}: {len(paths)} objects, {seeds} seeds, splats {quality:.1f} dB", ""]
        lines += table(scores)
        for place, path in enumerate(paths):
            one = {label: rows[:, place : place + 1] for label, rows in scores["Chamfer"].items()}
            lines += ["", f"{kind}, {path.stem}", "", *table({"Chamfer": one})]
        numbers[kind] = {
            name: {label: rows.tolist() for label, rows in of_variants.items()}
            for name, of_variants in scores.items()
        }
    objects = [path.stem for path in paths]
    write_json(output / "results.json", {"objects": objects, "seeds by objects": numbers})
    with atomic_path(output / "results.md") as partial:
        partial.write_text("\n".join(lines) + "\n")
    return lines


def main() -> None:
    parser = make_parser(
        __doc__.split("\n")[0],
        "benchmarks/interpolated_views.py cup.glb box.glb --output outputs/interpolated_views",
    )
    parser.add_argument("objects", nargs="+", type=Path, metavar="OBJECT")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--summarise", action="store_true", help="only print what is there")
    arguments = parse_arguments(parser)
    config = load_config(InterpolatedViewsConfig, arguments.config, arguments.overrides)
    if len({path.stem for path in arguments.objects}) < len(arguments.objects):
        raise InputError("two objects have the same name: rename one of the files")
    # Settings that say which runs there are, rather than what they do, may change.
    settings = config_to_dict(config)
    for name in ("seeds", "num_views", "controls"):
        settings.pop(name)
    keep_settings(arguments.output, settings)
    if not arguments.summarise:
        measure_all(arguments.objects, arguments.output, config)
    for line in summarise(arguments.objects, arguments.output, config):
        console.print(line, markup=False)


if __name__ == "__main__":
    run(main)
