import math
from dataclasses import replace

import pytest
import torch
import trimesh

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh
from hi3d.pipelines.pictures import render_mesh
from hi3d.surface.grid import ActiveGrid, GridField, surface_cells
from hi3d.surface.neus.config import LossWeights, NeusBackend, NeusConfig, annealed
from hi3d.surface.neus.fit import (
    INV_S_INIT,
    Sharpness,
    chosen_backend,
    fit_neus,
    level_ends,
)
from hi3d.surface.neus.losses import loss_color, loss_curvature, loss_eikonal, loss_mask
from hi3d.surface.neus.native import native_is_available, native_objective
from hi3d.surface.neus.rays import PixelSampler, Rays
from hi3d.surface.neus.renderer import StepSamples, draw_samples, neus_objective, render_rays
from hi3d.surface.neus.start import hull_field
from hi3d.surface.visual_hull import grid_points, shows_object

RADIUS = 0.4  # of the ball
ORBIT = orbit_cameras(20.0, 48, 16)
TINY = NeusConfig(
    steps=150,
    rays_per_step=512,
    resolutions=[16, 32],
    resolution_starts=[0.0, 0.5],
    regularized_vertices=1024,
)
needs_compiler = pytest.mark.skipif("not native_is_available()", reason="no C compiler")


def ball_field(resolution: int = 16, half_extent: float = 0.55) -> GridField:
    points = grid_points(resolution, half_extent, "cpu").reshape(*(resolution,) * 3, 3)
    return GridField(points.norm(dim=-1) - RADIUS, 4 * points, half_extent)


def mean_radius(field: GridField) -> float:
    """Of the zero level set, on rays from the middle above the underside, which no view sees."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(500, 3, generator=generator)
    directions = directions[directions[:, 2] > -0.5 * directions.norm(dim=-1)]
    directions = torch.nn.functional.normalize(directions, dim=-1)
    t = torch.linspace(0.2, 0.54, 341)
    sdf, _ = field.query(directions[:, None] * t[:, None])
    first_outside = (sdf > 0).int().argmax(-1)
    return t[first_outside].mean().item()


# Losses


def test_losses_by_hand():
    ones = torch.ones(1)
    error = loss_color(torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[0.2, 0.5, 0.5]]), ones)
    assert error.item() == pytest.approx((0.3 - 0.005) / 3)
    p = 1e-3 + 0.998 * 0.75
    assert loss_mask(torch.tensor([0.75]), ones, 2 * ones).item() == pytest.approx(-2 * math.log(p))
    assert loss_eikonal(torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])).item() == pytest.approx(2)
    assert loss_curvature(torch.tensor([1.0, 3.0])).item() == pytest.approx(5)


# Rays and rendering


def test_sampled_rays_hit_their_pixels(ball_views):
    views = ball_views(ORBIT)
    rays = PixelSampler(views).sample(300, torch.Generator().manual_seed(0))
    assert torch.allclose(rays.directions.norm(dim=-1), torch.ones(300), atol=1e-5)
    closest = torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1)
    clear = (closest - RADIUS).abs() > 1e-4
    assert torch.equal((closest < RADIUS)[clear], (rays.alpha > 0.5)[clear])
    assert (rays.alpha == 1).float().mean() > 0.4


def test_box_interval_by_hand():
    bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    origins = torch.tensor([[3.0, 0.0, 0.0], [3.0, 5.0, 0.0]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    rays = Rays(origins, directions, origins, origins[:, 0], origins[:, 0])
    t_near, t_far = rays.box_interval(bounds)
    assert (t_near[0].item(), t_far[0].item()) == (2, 4)
    assert t_near[1] >= t_far[1]


def test_rendering_a_sharp_ball_shows_its_silhouette_and_color():
    grid = ActiveGrid(ball_field(48), surface_cells(ball_field(48).sdf, 4))
    origins = torch.tensor([[1.5, 0.0, 0.0], [1.5, 0.0, 0.0]])
    directions = torch.nn.functional.normalize(
        torch.tensor([[-1.0, 0.0, 0.0], [-1.0, 0.4, 0.0]]), dim=-1
    )
    ones = torch.ones(2)
    rays = Rays(origins, directions, origins, ones, ones)
    t_near, t_far = rays.box_interval(grid.bounds)
    rgb, opacity = render_rays(grid, StepSamples(rays, t_near, t_far, grid.interior), 0.004, 600.0)
    assert opacity.tolist() == pytest.approx([1, 0], abs=1e-3)
    hit = torch.sigmoid(4 * torch.tensor([RADIUS, 0.0, 0.0]))
    assert torch.allclose(rgb[0], hit, atol=0.01)
    assert torch.allclose(rgb[1], torch.ones(3), atol=1e-3)


@needs_compiler
def test_native_and_torch_agree_in_values_and_gradients(ball_views):
    generator = torch.Generator().manual_seed(0)
    field = ball_field(16)
    field = replace(
        field,
        sdf=field.sdf + 0.01 * torch.randn(field.sdf.shape, generator=generator),
        rgb_logits=torch.randn(field.rgb_logits.shape, generator=generator),
    )
    grid = ActiveGrid(field, surface_cells(field.sdf, 2))
    views = ball_views(ORBIT)
    view_weights = torch.linspace(0.5, 1.5, len(views))
    rays = PixelSampler(views, view_weights).sample(300, generator)
    samples = draw_samples(grid, rays, TINY, generator)
    # Heavy regularisers, so that an error in one is not hidden by the images.
    weights = LossWeights(0.3, eikonal=0.3, curvature=0.2, bending=0.05, color_smoothness=0.1)
    results = []
    for objective in (neus_objective, native_objective):
        grid.zero_grad()
        inv_s = torch.tensor(60.0, requires_grad=True)
        total, losses = objective(grid, samples, inv_s, 0.6 * grid.voxel_size, weights)
        (2 * total).backward()
        gradients = (grid.sdf.grad, grid.rgb_logits.grad, inv_s.grad)
        results.append((total, losses, [g.clone() for g in gradients]))
    (total, losses, gradients), (native_total, native_losses, native_gradients) = results
    assert native_total.item() == pytest.approx(total.item(), rel=1e-4)
    for name, loss in losses.items():
        assert native_losses[name].item() == pytest.approx(loss.item(), rel=1e-3), name
    for ours, native in zip(gradients, native_gradients, strict=True):
        assert (ours - native).norm() < 1e-3 * ours.norm()


def test_weights_of_regularisers_go_from_the_first_to_the_last_value():
    config = replace(TINY, lambda_curvature=[0.01, 1.0], lambda_bending=[0.2, 0.0])
    assert config.loss_weights(0).curvature == pytest.approx(0.01)
    assert config.loss_weights(0.5).curvature == pytest.approx(0.1)
    assert config.loss_weights(1).curvature == pytest.approx(1)
    assert config.loss_weights(0.25).bending == pytest.approx(0.15)
    assert annealed([0.0, 0.0], 0.5) == 0


# Fits


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_fit_recovers_the_radius_of_a_ball(backend, ball_views):
    if backend == "native" and not native_is_available():
        pytest.skip("no C compiler")
    field = fit_neus(ball_views(ORBIT), replace(TINY, backend=NeusBackend(backend)), seed=1)
    assert mean_radius(field) == pytest.approx(RADIUS, rel=0.02)
    _, rgb = field.query(torch.tensor([[RADIUS, 0.0, 0.0], [0.0, -RADIUS, 0.0]]))
    expected = torch.tensor([[0.9, 0.5, 0.5], [0.5, 0.1, 0.5]])
    assert torch.allclose(rgb, expected, atol=0.12)


@needs_compiler
def test_a_bowl_opens():
    """The hull of a bowl has a lid; faint images say that there is none."""
    profile = [(0, -0.2), (0.3, -0.2), (0.42, 0.15), (0.36, 0.15), (0.26, -0.1), (0, -0.1)]
    bowl = trimesh.creation.revolve(profile, sections=48).subdivide_to_size(0.05)
    vertices = torch.tensor(bowl.vertices, dtype=torch.float32)
    angle = torch.atan2(vertices[:, 1], vertices[:, 0])
    rgb = 0.5 + 0.1 * torch.stack(
        [(3 * angle).sin(), (20 * vertices[:, 2]).sin(), (15 * vertices[:, 0]).cos()], dim=1
    )
    cameras = orbit_cameras(30.0, 48, 16)
    views = render_mesh(SurfaceMesh(vertices, torch.tensor(bowl.faces), rgb), cameras)
    config = replace(TINY, steps=400, resolution_starts=[0.0, 0.8])
    heights = torch.linspace(-0.2, 0.15, 36)
    axis = torch.stack([0.05 + 0 * heights, 0 * heights, heights], dim=1)

    def top(field: GridField) -> float:
        return heights[field.query(axis)[0] < 0].max().item()

    assert top(hull_field(views, config)) > 0.05
    assert top(fit_neus(views, config)) < -0.02


def test_the_same_seed_gives_the_same_field(ball_views):
    views, config = ball_views(ORBIT), replace(TINY, steps=10)
    first, again, other = (fit_neus(views, config, seed=s) for s in (3, 3, 4))
    assert torch.equal(first.sdf, again.sdf)
    assert not torch.equal(first.sdf, other.sdf)


def test_views_of_weight_zero_do_not_count(ball_views):
    views, config = ball_views(ORBIT), replace(TINY, steps=60)
    wrong = views.rgb.clone()
    wrong[1::2] = 0
    weights = torch.ones(len(views))
    weights[1::2] = 0
    point = torch.tensor([[0.0, 0.0, RADIUS]])
    _, rgb = fit_neus(replace(views, rgb=wrong), config, view_weights=weights).query(point)
    assert rgb[0, 2] > 0.75


def test_views_that_contradict_each_other_still_give_a_surface(ball_views):
    views = ball_views(ORBIT)
    alpha = torch.roll(views.alpha, 18, dims=-1)
    alpha[::2] = views.alpha[::2]
    torn = replace(views, alpha=alpha)
    assert (fit_neus(torn, replace(TINY, steps=40)).sdf < 0).sum() >= 8
    single = views.alpha.clone()
    single[1:] = 0
    lonely = fit_neus(replace(views, alpha=single), replace(TINY, steps=40))
    assert (lonely.sdf < 0).sum() >= 8


def test_empty_and_plain_frames_are_left_out(ball_views):
    views = ball_views(ORBIT)
    rgb, alpha = views.rgb.clone(), views.alpha.clone()
    rgb[2], alpha[2] = 1, 0
    rgb[5], alpha[5] = 0, 1
    broken = replace(views, rgb=rgb, alpha=alpha)
    assert (~shows_object(broken)).nonzero()[:, 0].tolist() == [2, 5]
    field = fit_neus(broken, TINY, view_weights=torch.ones(len(views)))
    assert mean_radius(field) == pytest.approx(RADIUS, rel=0.03)


def test_four_views_and_an_object_at_the_border_give_a_finite_surface(ball_views):
    views = ball_views(orbit_cameras(20.0, 48, 4))
    Ks = views.cameras.Ks.clone()
    Ks[:, 0, 2] += 18  # the ball leaves the image on the right
    shifted = replace(
        views,
        rgb=views.rgb.roll(18, -1),
        alpha=views.alpha.roll(18, -1),
        cameras=replace(views.cameras, Ks=Ks),
    )
    shifted.rgb[..., :10], shifted.alpha[..., :10] = 1, 0
    field = fit_neus(shifted, replace(TINY, steps=40))
    assert torch.isfinite(field.sdf).all()
    assert mean_radius(field) == pytest.approx(RADIUS, rel=0.15)


def test_views_without_an_object_are_a_clear_error(ball_views):
    views = ball_views(ORBIT)
    with pytest.raises(InputError, match="no view shows an object"):
        fit_neus(replace(views, alpha=torch.zeros_like(views.alpha)), TINY)
    with pytest.raises(InputError, match="no view shows background"):
        fit_neus(replace(views, alpha=torch.ones_like(views.alpha)), TINY)
    with pytest.raises(InputError, match="not finite"):
        fit_neus(replace(views, rgb=views.rgb * torch.nan), TINY)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resolution_starts", [0.0]),
        ("resolution_starts", [0.5, 0.0]),
        ("resolution_starts", [0.1, 0.5]),
        ("resolution_starts", [0.0, 1.0]),
        ("resolution_starts", [0.0, math.nan]),
        ("resolutions", [4, 32]),
        ("resolutions", [16, 1024]),
        ("resolutions", []),
        ("steps", 0),
        ("rays_per_step", -1),
        ("image_resolution", 0),
        ("hull_tolerance", -1),
        ("inv_s_floor", math.inf),
        ("regularized_vertices", 0),
        ("lambda_bending", [0.1]),
        ("lambda_curvature", [0.1, -1.0]),
        ("lambda_color_smoothness", [math.nan, 0.1]),
    ],
)
def test_settings_out_of_their_range_are_one_line(key, value):
    with pytest.raises(InputError, match=rf"^neus\.{key} is .*: (give|let)"):
        replace(TINY, **{key: value})


def test_view_weights_of_another_length_are_an_error(ball_views):
    with pytest.raises(ValueError, match="view_weights"):
        fit_neus(ball_views(orbit_cameras(20.0, 48, 2)), TINY, view_weights=torch.ones(3))


def test_inv_s_is_learned_above_a_rising_floor():
    floored = Sharpness(replace(TINY, inv_s_floor=16 * INV_S_INIT))
    assert floored(0.0).item() == pytest.approx(INV_S_INIT, rel=1e-4)
    assert floored(0.5).item() == pytest.approx(4 * INV_S_INIT, rel=1e-4)  # the geometric mean
    learned = Sharpness(replace(TINY, inv_s_floor=0.0))
    assert learned(1.0).item() == pytest.approx(INV_S_INIT, rel=1e-4)
    learned(1.0).backward()
    assert learned.variance.grad.item() == pytest.approx(10 * INV_S_INIT, rel=1e-3)


def test_schedule_and_backend_choices():
    config = replace(TINY, steps=100, resolutions=[8, 16, 32], resolution_starts=[0.0, 0.3, 0.55])
    assert level_ends(config) == [30, 55, 100]
    auto = chosen_backend(TINY, torch.device("cpu"))
    assert auto is (NeusBackend.native if native_is_available() else NeusBackend.torch)
    with pytest.raises(InputError, match="native"):
        chosen_backend(replace(TINY, backend=NeusBackend.native), torch.device("meta"))


def test_hull_field_has_the_first_resolution(ball_views):
    assert hull_field(ball_views(ORBIT), TINY).resolution == 16
