"""The chains by name, for whoever runs one many times with changed settings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hi3d.config import load_config
from hi3d.pipelines.image_to_3d import GenerateConfig, check_models, image_to_3d
from hi3d.pipelines.views_to_mesh import ReconstructConfig, reconstruct

CHAINS: dict[str, type[GenerateConfig] | type[ReconstructConfig]] = {
    "generate": GenerateConfig,
    "reconstruct": ReconstructConfig,
}
"""Settings of each."""


def settings_with(chain: str, config: str | None, overrides: Sequence[str]) -> Any:
    """Settings of a chain.

    Args:
        chain: a name of `CHAINS`.
        config: YAML file; None for the defaults.
        overrides: `key=value` words.

    Raises:
        InputError: a key or a value is wrong, or a model folder.
    """
    settings = load_config(CHAINS[chain], config, overrides)
    if isinstance(settings, GenerateConfig):
        check_models(settings)
    return settings


def run_chain(chain: str, given: Path, settings: Any, folder: Path) -> None:
    """Run a chain, or what an earlier run left of it.

    Args:
        chain: a name of `CHAINS`.
        given: of `generate` the photo, of `reconstruct` the folder of views, in one folder with the
            names `photo.png` and `views`.
        settings: of the chain.
        folder: of the run.
    """
    settings = replace(settings, resume=True)
    if chain == "generate":
        image_to_3d(given / "photo.png", settings, folder)
    else:
        reconstruct(given / "views", settings, folder)
