"""Consistency without a truth: true views agree, shuffled ones do not."""

import math
from dataclasses import replace

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.evaluation.consistency import (
    ConsistencyConfig,
    clip_similarity,
    depth_of,
    reprojection_error,
    view_consistency,
)
from hi3d.splatting.fit import SplatConfig
from hi3d.views import Views
from tests.conftest import sphere_views

SHUFFLED = [0, 5, 10, 3, 8, 13, 2, 7, 12, 1, 6, 11, 4, 9, 14, 15]


def ball_views(num: int = 16) -> tuple[Views, torch.Tensor]:
    """A sphere colored by its normal, so that views tell azimuths, and its depth."""
    return sphere_views(orbit_cameras(20.0, 48, num), 0.35)


def test_true_views_agree_and_shuffled_ones_do_not():
    views, _ = ball_views()
    config = ConsistencyConfig(
        resolution=48, splats=SplatConfig(steps=50, num_initial=600, max_splats=800)
    )
    true = view_consistency(views, config)
    mixed = view_consistency(
        replace(views, rgb=views.rgb[SHUFFLED], alpha=views.alpha[SHUFFLED]), config
    )
    assert true["c_psnr"] > 25
    assert true["c_psnr"] > mixed["c_psnr"] + 3
    assert true["c_ssim"] > mixed["c_ssim"]
    assert true["reprojection"] < 0.5 * mixed["reprojection"]
    assert true["c_chamfer"] < 0.05


def test_reprojection_with_known_depth():
    views, depth = ball_views()
    right = reprojection_error(views, depth)
    assert right < 0.02  # bilinear colors and edges
    gain = torch.ones(16, 1, 1, 1)
    gain[::2] = 0.9
    darker = replace(views, rgb=views.rgb * gain)
    # Every neighbour is 0.9 times as bright: colors on the sphere are 0.5 in the mean.
    assert reprojection_error(darker, depth) == pytest.approx(0.05, abs=0.02)
    assert math.isnan(reprojection_error(views, torch.zeros_like(depth)))


def test_depth_of_a_mesh_is_that_of_the_sphere():
    import trimesh

    from hi3d.mesh import SurfaceMesh

    ball = trimesh.creation.icosphere(4, 0.35)
    points = torch.tensor(ball.vertices, dtype=torch.float32)
    mesh = SurfaceMesh(points, torch.tensor(ball.faces), torch.full_like(points, 0.5))
    views, depth = ball_views(4)
    found = depth_of(mesh, views)
    both = (found > 0) & (depth > 0)
    assert both.sum() > 0.97 * (depth > 0).sum()
    assert (found - depth)[both].abs().max() < 0.05
    assert (found - depth)[both].abs().mean() < 2e-3


def test_clip_similarity_of_equal_and_other_views(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = CLIPVisionConfig(
        **sizes, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=8
    )
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip")
    rgb = torch.rand(3, 3, 32, 32)
    assert clip_similarity(rgb, str(tmp_path / "clip")) < 0.9999
    assert clip_similarity(rgb[:1].expand(3, -1, -1, -1), str(tmp_path / "clip")) == pytest.approx(
        1
    )
    with pytest.raises(InputError, match="no CLIP model"):
        clip_similarity(rgb, str(tmp_path))


def test_few_views_are_refused():
    with pytest.raises(InputError, match="give 6 or more"):
        view_consistency(ball_views(4)[0])
