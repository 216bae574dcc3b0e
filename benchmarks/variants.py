"""Variants of the reconstruction side by side, on true views and on views that do not agree.

    python benchmarks/variants.py OBJECT ... --variants FILE --output DIR [key=value ...]

FILE is one of benchmarks/variants/: what is measured (splats at unseen views, or the surface), the
settings that all share, and each variant's own; the first is the baseline. Each object is rendered
from 16 sides at elevation 20. The views are the renders (oracle), or renders perturbed as generated
views are: smooth warps, shifts of color and blur, other ones in every view and for each seed.

A variant may take views between the given ones from splats, which are fitted once to the views of
an object, kind and seed, or from true renders (`between: true`). Rays are equal per view: a step
has `rays_per_view` for every given view and for `rays_of` more. With `seconds` a fit has as many
steps as fit into that time, found by timing a few.

Means are over the objects; the standard error is over the seeds, and says nothing about other
objects. Differences and ratios to the baseline are taken within object, kind and seed. What is
there already is not done again; --summarise only reads. Writes `results.json` and `results.md`.
"""

import functools
import itertools
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from common import (
    ELEVATION_DEG,
    Truth,
    check_objects,
    keep_settings,
    perturb,
    timed,
    truth_of,
)
from omegaconf import MISSING
from torch import Tensor

from hi3d.assets.load import load_object
from hi3d.assets.parts import RenderObject
from hi3d.cameras import between_views, orbit_cameras
from hi3d.command_line import make_parser, parse_arguments, run
from hi3d.config import config_to_dict, load_config
from hi3d.errors import InputError
from hi3d.evaluation.view_metrics import psnr
from hi3d.files import atomic_path, write_json
from hi3d.pipelines.views_to_mesh import MeshReconstructionConfig, fit_splats_from_hull
from hi3d.progress import console
from hi3d.rendering.rasterizer import render_views
from hi3d.splats import GaussianSplats
from hi3d.splatting.fit import fit_splats, render_between_views
from hi3d.surface.initial_points import SURFACE_SHARE, initial_points
from hi3d.surface.meshing import extract_mesh
from hi3d.surface.neus.fit import fit_neus
from hi3d.views import Views, concatenate_views

NUM_UNSEEN = 8
TIMED_STEPS = 12


@dataclass
class Variant:
    """One way to reconstruct; what is not given is the baseline's."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Keys of the shared settings, such as `splats.sh_degree`, and their values."""
    views_between: int = 0
    """M, for the surface."""
    rays_of: int = 0
    """A step has the rays of this M."""
    between: bool = False
    """Whether the views between are renders of the object, not of the splats."""
    weight: float = 1.0
    """Of the views between, where the given ones have 1."""
    surface_share: float = SURFACE_SHARE
    """Share of the first Gaussians that are discs on the hull."""
    seconds: float | None = None
    """Time of the fit; None takes the settings' steps."""


@dataclass
class VariantsConfig:
    """Settings of the benchmark."""

    measure: str = MISSING
    """`splats` or `surface`."""
    variants: dict[str, Variant] = field(default_factory=dict)
    """By name; the first is the baseline."""
    kinds: list[str] = field(default_factory=lambda: ["oracle", "perturbed"])
    seeds: int = 1
    """Seeds 0 to this less one: of perturbation, splats and NeuS."""
    resolution: int = 128
    """Side of the views in pixels."""
    rays_per_view: int | None = None
    """Of one step, on average; None takes the settings' rays_per_step."""
    warp: float = 0.01
    """Largest displacement of a warp, as a share of the image's side."""
    color_shift: float = 0.08
    """Largest change of a color channel's gain, and half of it of its offset."""
    shared: MeshReconstructionConfig = field(default_factory=MeshReconstructionConfig)

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.measure not in ("splats", "surface") or not self.variants:
            raise InputError("give seeds of at least 1, measure=splats|surface, and variants")


@dataclass(frozen=True)
class Case:
    """One object, kind of views and seed."""

    path: Path
    kind: str
    seed: int
    config: VariantsConfig
    folder: Path

    @functools.cached_property
    def views(self) -> Views:
        """The given views."""
        cameras = orbit_cameras(ELEVATION_DEG, self.config.resolution)
        views = render_views(loaded(self.path)[0], cameras).views
        if self.kind == "oracle":
            return views
        generator = torch.Generator().manual_seed(self.seed)
        return perturb(views, self.config.warp, self.config.color_shift, generator)

    @functools.cached_property
    def splats(self) -> GaussianSplats:
        """Fitted to the given views; they know nothing of the surface that they serve."""
        path = self.folder / f"{self.kind}, seed {self.seed}.ply"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            fit_splats_from_hull(self.views, self.config.shared.splats, self.seed).save_ply(path)
        return GaussianSplats.load_ply(path)

    def result(self, name: str) -> Path:
        """Where the scores of a variant are kept."""
        return self.folder / f"{self.kind}, seed {self.seed}, {name}.json"

    def true_views(self, number: int) -> Views:
        """Renders between the given views."""
        return render_views(loaded(self.path)[0], between_views(self.views.cameras, number)).views


@functools.lru_cache(maxsize=4)
def loaded(path: Path) -> tuple[RenderObject, Truth]:
    """An object and what its meshes are scored against."""
    return load_object(path), truth_of(path)


def settings_of(variant: Variant, config: VariantsConfig) -> MeshReconstructionConfig:
    """The shared settings with the variant's own."""
    words = [f"shared.{key}={json.dumps(value)}" for key, value in variant.settings.items()]
    leaves = _leaves(config_to_dict(config)["shared"])
    given = [f"shared.{key}={json.dumps(value)}" for key, value in leaves]
    words = [f"measure={config.measure}", "variants={x: {}}", *given, *words]
    return load_config(VariantsConfig, None, words).shared


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        inner = _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else []
        found += inner or ([] if isinstance(value, dict) else [(f"{prefix}{key}", value)])
    return found


def measure_splats(case: Case, variant: Variant) -> dict[str, float]:
    """Fit splats and compare them with views that no fit sees."""
    settings = settings_of(variant, case.config).splats

    def fit() -> GaussianSplats:
        generator = torch.Generator(case.views.rgb.device).manual_seed(case.seed)
        points = initial_points(
            case.views, settings.num_initial, generator, surface_share=variant.surface_share
        )
        return fit_splats(case.views, points, settings, generator)

    splats, _, cpu = timed(fit)
    shown = render_between_views(splats, case.views.cameras, NUM_UNSEEN)
    return {"PSNR": psnr(shown.rgb, case.true_views(NUM_UNSEEN).rgb).mean().item(), "CPU s": cpu}


def measure_surface(case: Case, variant: Variant) -> dict[str, float]:
    """Fit NeuS to the views and those that the variant adds, and score its mesh."""
    config, settings = case.config, settings_of(variant, case.config)
    views, weights, neus = case.views, torch.ones(len(case.views)), settings.neus
    if variant.views_between:
        between = (
            case.true_views(variant.views_between)
            if variant.between
            else render_between_views(case.splats, views.cameras, variant.views_between)
        )
        views = concatenate_views(views, between)
        weights = torch.cat([weights, torch.full((len(between),), variant.weight)])
    if config.rays_per_view is not None:
        rays = config.rays_per_view * (len(case.views) + variant.rays_of)
        neus = replace(neus, rays_per_step=rays)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    views = views.to(device)

    def fit(steps: int) -> Any:
        return fit_neus(views, replace(neus, steps=steps), case.seed, weights)

    steps = neus.steps if variant.seconds is None else steps_within(fit, variant.seconds)
    surface, wall, cpu = timed(lambda: fit(steps))
    mesh = extract_mesh(surface, settings.meshing, case.views.cameras).to("cpu")
    scores = loaded(case.path)[1].score(mesh)
    return {**scores, "steps": steps, "s": wall, "CPU s": cpu}


def steps_within(fit: Any, seconds: float) -> int:
    """Steps of a fit that take so long."""
    fit(1)
    fixed = timed(lambda: fit(1))[1]
    per_step = max((timed(lambda: fit(1 + TIMED_STEPS))[1] - fixed) / TIMED_STEPS, 1e-6)
    return max(1, int((seconds - fixed) / per_step))


def cases(paths: list[Path], output: Path, config: VariantsConfig) -> list[Case]:
    """Seed by seed, so that what is there is balanced at any time."""
    product = itertools.product(range(config.seeds), paths, config.kinds)
    return [Case(path, kind, seed, config, output / path.stem) for seed, path, kind in product]


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of scores [seeds, objects], and its standard error over seeds (NaN for one)."""
    by_seed = values.double().mean(1)
    error = by_seed.std().item() / math.sqrt(len(by_seed)) if len(by_seed) > 1 else math.nan
    return by_seed.mean().item(), error


def table(rows: dict[str, dict[str, Tensor]]) -> list[str]:
    """Lines of a Markdown table: means, differences and ratios to the first row.

    Args:
        rows: by variant, by score, [seeds, objects].
    """
    baseline = next(iter(rows.values()))
    names = list(baseline)
    lines = ["| |" + "".join(f" {name} | difference | ratio |" for name in names)]
    lines.append("|---" + "|---:" * 3 * len(names) + "|")
    for label, scores in rows.items():
        cells = [label]
        for name in names:
            mean, error = mean_and_error(scores[name])
            change, change_error = mean_and_error(scores[name] - baseline[name])
            ratio = mean / (baseline[name].mean().item() or math.nan)
            cells += [f"{mean:.5g} ± {error:.2g}", f"{change:+.5g} ± {change_error:.2g}"]
            cells.append(f"{ratio:.3f}x")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def summarise(paths: list[Path], output: Path, config: VariantsConfig) -> list[str]:
    """Write the tables of the seeds that are complete, and return their lines."""
    lines: list[str] = []
    numbers: dict[str, Any] = {}
    for kind in config.kinds:
        rows: dict[str, list[list[dict[str, float]]]] = {name: [] for name in config.variants}
        for seed in range(config.seeds):
            files = {
                name: [
                    Case(path, kind, seed, config, output / path.stem).result(name)
                    for path in paths
                ]
                for name in config.variants
            }
            if all(file.is_file() for row in files.values() for file in row):
                for name, row in files.items():
                    rows[name].append([json.loads(file.read_text()) for file in row])
        first = next(iter(rows.values()))
        if not first:
            continue
        tensors = {
            name: {
                score: torch.tensor([[one[score] for one in row] for row in seeds])
                for score in first[0][0]
            }
            for name, seeds in rows.items()
        }
        lines += ["", f"{kind}: {len(paths)} objects, {len(first)} seeds", "", *table(tensors)]
        numbers[kind] = rows
    write_json(output / "results.json", {"objects": [p.stem for p in paths], "scores": numbers})
    with atomic_path(output / "results.md") as partial:
        partial.write_text("\n".join(lines) + "\n")
    return lines


def main() -> None:
    example = "benchmarks/variants.py cup.glb --variants benchmarks/variants/splats.yaml --output o"
    parser = make_parser(__doc__.split("\n")[0], example)
    parser.add_argument("objects", nargs="+", type=Path, metavar="OBJECT")
    parser.add_argument("--variants", required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--summarise", action="store_true", help="only print what is there")
    arguments = parse_arguments(parser)
    config = load_config(VariantsConfig, arguments.variants, arguments.overrides)
    check_objects(arguments.objects)
    # Settings that say which runs there are, rather than what they do, may change.
    settings = config_to_dict(config)
    for name in ("seeds", "variants", "kinds"):
        settings.pop(name)
    keep_settings(arguments.output, settings)
    measure = measure_splats if config.measure == "splats" else measure_surface
    for case in [] if arguments.summarise else cases(arguments.objects, arguments.output, config):
        for name, variant in config.variants.items():
            if not case.result(name).is_file():
                scores = measure(case, variant)
                case.folder.mkdir(parents=True, exist_ok=True)
                write_json(case.result(name), scores)
                told = ", ".join(f"{key} {value:.4g}" for key, value in scores.items())
                console.print(f"seed {case.seed}, {case.path.stem}, {case.kind}, {name}: {told}")
    for line in summarise(arguments.objects, arguments.output, config):
        console.print(line, markup=False)


if __name__ == "__main__":
    run(main)
