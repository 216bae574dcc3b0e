"""Shared tiny models and analytic orbits.

What is slow to import (diffusers, transformers, Lightning) is imported in the fixture that needs
it, so that a run of few tests starts at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.views import Views, save_depth

if TYPE_CHECKING:
    from hi3d.images.lpips import LpipsNetwork

LONG = tuple(f"tests/{name}" for name in ("training", "pipelines", "diffusion", "scripts", "nano"))
"""Folders with the files that take longest."""
TINY = 16
"""Image side of the tiny models; their VAE halves it once."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: processes that share the files then end together."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def sphere_views(cameras: Cameras, radius: float = 0.4) -> tuple[Views, torch.Tensor]:
    """A sphere coloured by its surface normal, and its depth [V, H, W] (0 = empty)."""
    rgb, alpha, depth = [], [], []
    for view in range(len(cameras)):
        origins, directions = cameras.rays(view)
        b = (origins * directions).sum(-1)
        discriminant = b**2 - (origins.square().sum(-1) - radius**2)
        hit = discriminant > 0
        t = -b - discriminant.clamp_min(0).sqrt()
        normals = (origins + t[..., None] * directions) / radius
        color = torch.where(hit[..., None], 0.5 + 0.4 * normals, torch.ones(3))
        forward = cameras.viewmats[view, 2, :3]
        rgb.append(color.permute(2, 0, 1))
        alpha.append(hit[None].float())
        depth.append(torch.where(hit, t * (directions @ forward), torch.zeros(())))
    return Views(torch.stack(rgb), torch.stack(alpha), cameras), torch.stack(depth)


GOLDEN = Path(__file__).parent / "golden" / "values.json"
GOLDEN_TOLERANCE = {"rel": 2e-4, "abs": 2e-5}
"""Kernels sum in another order on other CPUs; counts are compared exactly."""


@pytest.fixture
def golden() -> Iterator[Callable[..., None]]:
    """Compares numbers with those of `golden/values.json`, on one thread.

    A change that is meant to change nothing leaves them alone. HI3D_GOLDEN_UPDATE=1 writes them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def check(name: str, **values: Tensor | float | int) -> None:
        found = {key: _short(value) for key, value in values.items()}
        stored = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        if os.environ.get("HI3D_GOLDEN_UPDATE"):
            text = json.dumps(stored | {name: found}, indent=1, sort_keys=True)
            GOLDEN.write_text(re.sub(r"\[[^]]*\]", lambda m: " ".join(m[0].split()), text) + "\n")
            return
        assert stored[name].keys() == found.keys()
        for key, value in found.items():
            expected = stored[name][key]
            if not isinstance(value, int):
                expected = pytest.approx(expected, **GOLDEN_TOLERANCE)
            assert value == expected, f"{name}: {key}"

    yield check
    torch.set_num_threads(threads)


def _short(value: Tensor | float | int) -> int | float | list[float]:
    """A number as it is; of a tensor mean, deviation, three projections and three entries."""
    if isinstance(value, int | float):
        return value if isinstance(value, int) else float(f"{value:.8g}")
    flat = value.detach().double().flatten()
    index = torch.arange(len(flat), dtype=torch.float64)
    waves = [(flat * torch.cos(index * k)).mean() for k in (0.7, 1.3, 2.9)]
    entries = [flat[len(flat) * k // 4] for k in (1, 2, 3)]
    return [float(f"{v:.8g}") for v in (flat.mean(), flat.std(), *waves, *entries)]


@pytest.fixture(scope="session", name="sphere_views")
def sphere_views_fixture() -> Callable[..., tuple[Views, torch.Tensor]]:
    """`sphere_views`"""
    return sphere_views


@pytest.fixture(scope="session")
def ball_views(sphere_views) -> Callable[..., Views]:
    """Views of a ball of radius 0.4 whose colour is 0.5 + position, samples^2 rays a pixel."""

    def views_of_a_ball(cameras: Cameras, samples: int = 1) -> Views:
        fine, _ = sphere_views(cameras.resized(samples * cameras.width, samples * cameras.height))
        pixels = [torch.nn.functional.avg_pool2d(t, samples) for t in (fine.rgb, fine.alpha)]
        return Views(*pixels, cameras)

    return views_of_a_ball


def random_lpips_backbone(network: LpipsNetwork, path: Path) -> torch.nn.Sequential:
    """Write a file like torchvision's, with random weights; returns its layers."""
    from hi3d.images.lpips import feature_layers

    layers = feature_layers(network)
    generator = torch.Generator().manual_seed(3)
    for parameter in layers.parameters():
        size = parameter[0].numel() if parameter.ndim > 1 else 100
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / size) ** 0.5)
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save({**state, "classifier.1.weight": torch.zeros(2, 2)}, path)
    return layers


@pytest.fixture(scope="session", name="random_lpips_backbone")
def random_lpips_backbone_fixture() -> Callable[[LpipsNetwork, Path], torch.nn.Sequential]:
    """`random_lpips_backbone`"""
    return random_lpips_backbone


@pytest.fixture(scope="session")
def orbits(tmp_path_factory) -> Path:
    """Four orbits of spheres of different size and elevation, in folders, with depth."""
    folder = tmp_path_factory.mktemp("orbits")
    for i, elevation_deg in enumerate([-5.0, 5.0, 15.0, 30.0]):
        views, depth = sphere_views(orbit_cameras(elevation_deg, TINY), 0.3 + 0.04 * i)
        target = folder / f"sphere{i}"
        views.save(target)
        for view, values in enumerate(depth):
            save_depth(target / f"{view:03d}-depth.png", values)
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """Model folders `stage1`, `stage2` and `svd`, with random weights."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from hi3d.diffusion.elevation import ElevationEstimator
    from hi3d.diffusion.unet import UNetConfig, build_unet, stage1_in_channels, stage2_in_channels
    from hi3d.diffusion.weights import svd_scheduler, write_model_index
    from hi3d.nano.experiment import DepthConfig
    from hi3d.nano.grid.predictor import GridPredictor
    from hi3d.nano.train_networks import build_depth_estimator

    unet_config = UNetConfig([32, 32], 1, [1, 1], 16, 32)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 2,
        block_out_channels=(32, 32),
        layers_per_block=1,
        latent_channels=4,
    )
    image_encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            projection_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
    )
    depth = build_depth_estimator(DepthConfig(16, 4, 16, 4, 2, 8))
    with torch.random.fork_rng():
        predictor = GridPredictor(TINY, 8, (8, 8, 32), 1)
    torch.nn.init.constant_(predictor.head.bias[2:6], 6.0)  # solid where the photo shows something
    shared = {
        "vae": vae,
        "image_encoder": image_encoder,
        "elevation_estimator": ElevationEstimator((8, 8), 16),
        "scheduler": svd_scheduler(),
    }
    stage1 = {
        **shared,
        "unet": build_unet(unet_config, stage1_in_channels(4), 4),
        "grid_predictor": predictor,
    }
    stage2 = {
        **shared,
        "unet": build_unet(unet_config, stage2_in_channels(4), 4),
        "depth_estimator": depth,
    }
    svd_config = {**stage1["unet"].config, "projection_class_embeddings_input_dim": 3 * 32}
    svd = {**shared, "unet": UNetSpatioTemporalConditionModel.from_config(svd_config)}
    for name, parts, pipeline in (
        # The small model's, so that the views of random weights show the photo's object.
        ("stage1", stage1, ("hi3d.nano.pipelines", "NanoOrbitPipeline")),
        ("stage2", stage2, ("hi3d.nano.pipelines", "NanoRefinerPipeline")),
        ("svd", svd, ("diffusers", "StableVideoDiffusionPipeline")),
    ):
        for part_name, part in parts.items():
            part.save_pretrained(folder / name / part_name)
        write_model_index(folder / name, parts, pipeline, resolution=TINY)
    return folder
