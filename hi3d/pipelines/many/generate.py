"""The chain for several photos and several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hi3d.errors import InputError
from hi3d.pipelines.image_to_3d import (
    CONTACT_SHEET,
    PAGE,
    TURNTABLE,
    GenerateConfig,
    Photo3D,
    check_models,
    nothing,
    one_result,
    read_photo,
    run_folder,
)
from hi3d.pipelines.many.diversity import diversity
from hi3d.pipelines.many.seeds import seeds_in
from hi3d.pipelines.pictures import render_mesh, write_contact_sheet
from hi3d.pipelines.run_folder import check_output
from hi3d.pipelines.sampling.plan import print_plan
from hi3d.pipelines.steps import Context, Step, run_steps
from hi3d.pipelines.views_to_mesh import TEXTURE, views_hash
from hi3d.progress import console


@dataclass(frozen=True)
class Seeds:
    """What the step that compares several seeds is given."""

    results: dict[int, Photo3D]


def save_seed_sheet(context: Context[Seeds], value: None, path: Path) -> None:
    """Write the refined views and the meshes of all seeds, one below the other (paper, Fig. 6)."""
    results = context.settings.results
    first = next(iter(results.values()))
    cameras = first.refined.cameras
    rows = {}
    for seed, result in results.items():
        rows[f"seed {seed}, stage 2"] = result.refined.rgb
        rows[f"seed {seed}, mesh"] = render_mesh(result.mesh, cameras.resized(256, 256)).rgb
    rgb = torch.stack([result.refined.rgb for result in results.values()])
    context.facts["psnr_between_seeds"] = diversity(rgb, cameras.azimuth_deg)
    write_contact_sheet(path, first.reference, rows)


SEED_SHEET = Step(
    "seeds",
    "seeds.png",
    nothing,
    save_seed_sheet,
    nothing,
    lambda seeds: {str(s): views_hash(r.refined) for s, r in seeds.results.items()},
)


def several_seeds(photo: str | Path, config: GenerateConfig, output: str | Path) -> list[Photo3D]:
    """Photo to several textured meshes, one of each seed.

    The photo is cut out once and the networks are loaded once. `output/seed_<seed>` holds a result
    as `image_to_3d` writes it, `output` a sheet of them all and, in the report, the PSNR of the
    seeds' refined views to each other.

    Args:
        photo: image file of one object.
        config: settings; `seed` is a list.
        output: folder.

    Returns:
        The results, in the order of the seeds.

    Raises:
        InputError: as `image_to_3d`.
    """
    given = read_photo(photo, config, output)
    seeds = seeds_in(config.seed)
    if len(seeds) == 1:
        return [one_result(photo, given, output)]
    run = run_folder(photo, given, output)
    given = replace(given, kept={})
    results = {}
    for seed in seeds:
        console.print(f"seed {seed}")
        one = replace(given, config=replace(config, seed=seed))
        results[seed] = one_result(photo, one, Path(output) / f"seed_{seed}")
    run_steps([SEED_SHEET], Seeds(results), run)
    return list(results.values())


def generate(photos: Sequence[str], output: str, config: GenerateConfig) -> list[Path]:
    """Make a textured mesh of every photo, each in its own folder of `output`.

    Args:
        photos: image files.
        output: folder; a photo `cup.png` goes to `output/cup/`.
        config: settings.

    Returns:
        The folders.

    Raises:
        InputError: something is wrong with the settings, the output or a photo; with several
            photos the good ones are finished first.
    """
    check_models(config)
    if config.dry_run:
        stages = {
            "stage1": (config.stage1, config.orbit),
            "stage2": (config.stage2, config.refiner),
        }
        print_plan(stages, config.memory)
        return []
    check_output(Path(output))
    names = [Path(photo).stem for photo in photos]
    if len(set(names)) < len(names):
        raise InputError("two photos have the same name: rename one, or run them one by one")
    folders, errors = [], []
    for photo, name in zip(photos, names, strict=True):
        folder = Path(output) / name
        try:
            several_seeds(photo, config, folder)
        except InputError as error:
            errors.append(str(error))
            continue
        folders.append(folder)
        seeds = len(seeds_in(config.seed))
        for step in (TEXTURE, TURNTABLE, CONTACT_SHEET, PAGE) if seeds == 1 else (SEED_SHEET,):
            name = "mesh" if step is TEXTURE else step.name.replace("_", " ")
            console.print(f"{name}: {folder / step.result}")
    if errors:
        raise InputError("; ".join(errors))
    return folders
