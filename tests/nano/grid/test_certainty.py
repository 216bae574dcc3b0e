"""One object out of likelihoods."""

import pytest
import torch

from hi3d.nano.grid.certainty import (
    LEVEL,
    MAX_OPACITY,
    MAX_RAISE,
    NOISE_LIMIT,
    NOISE_STD,
    SCALE,
    UNSEEN_FROM,
    decided,
    drawn_noise,
    ray_raises,
    surface_logits,
    unseen_noise,
)
from hi3d.nano.grid.predictor import FARTHEST, NEAREST
from hi3d.nano.grid.rendering import (
    CELL,
    DENSITY_SHIFT,
    SHARPNESS,
    Field,
    RaySampling,
    project,
    render_field,
    sample_grid,
)

SIZE, DEPTHS = 8, 64
ELEVATION = torch.tensor([20.0])


def frustum(likeliest: int, unsure: float) -> torch.Tensor:
    """Logits that fall by `unsure` a cell from the likeliest depth, far below the level."""
    distance = (torch.arange(DEPTHS) - likeliest).abs()
    return (-4.0 - unsure * distance)[None, :, None, None].expand(1, DEPTHS, SIZE, SIZE).clone()


def raises(logits: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return ray_raises(logits, torch.zeros(1, SIZE, SIZE), alpha, ELEVATION, (NEAREST, FARTHEST))


def rendered(logits: torch.Tensor, azimuth_deg: float) -> torch.Tensor:
    """Alpha of the decided frustum as a view sees it. [SIZE, SIZE]"""

    def field_of(logits: torch.Tensor) -> Field:
        def values(points: torch.Tensor) -> torch.Tensor:
            xy, depths = project(points, torch.zeros(1), ELEVATION)
            z = (depths - NEAREST) / (FARTHEST - NEAREST) * 2 - 1
            place = torch.cat([xy, z[..., None]], -1)[:, :, None, None]
            density = torch.nn.functional.grid_sample(
                logits[:, None], place, align_corners=False, padding_mode="border"
            )[..., 0, 0]
            return torch.cat([decided(density), torch.zeros_like(density).repeat(1, 3, 1)], 1)

        return values

    azimuth = torch.tensor([[azimuth_deg]])
    sampling = RaySampling(num_samples=200)
    return render_field(field_of(logits), azimuth, ELEVATION, SIZE, sampling)[1][0, 0, 0]


def test_a_cell_at_the_level_has_the_density_of_ln_2():
    density = torch.nn.functional.softplus(SHARPNESS * decided(torch.tensor(LEVEL)) + DENSITY_SHIFT)
    assert density.item() == pytest.approx(0.6931, abs=1e-3)
    steep = decided(torch.tensor(LEVEL + 0.5)) - decided(torch.tensor(LEVEL - 0.5))
    assert steep.item() == pytest.approx(SCALE)
    assert SCALE > 2


def test_the_rays_of_the_silhouette_become_as_opaque_as_the_photo():
    alpha = torch.zeros(1, SIZE, SIZE)
    alpha[:, 2:6, 2:6], alpha[:, 3, 3] = 1.0, 0.5
    logits = frustum(DEPTHS // 2, 0.5)
    lacking = raises(logits, alpha)
    assert (lacking[alpha == 0] == 0).all()
    seen = rendered(logits + lacking[:, None], 0.0)
    assert seen[2:6, 2:6][alpha[0, 2:6, 2:6] == 1].min() > MAX_OPACITY - 0.08
    assert 0.2 < seen[3, 3] < 0.6  # between cells a thin sheet is thinner
    assert seen[0].max() < 0.05


def test_rays_that_are_opaque_already_stay_as_they_are():
    solid = torch.full((1, DEPTHS, SIZE, SIZE), 3.0)
    assert (raises(solid, torch.ones(1, SIZE, SIZE)) == 0).all()


def test_what_is_raised_lies_at_the_likeliest_depth():
    """Seen from the side it is a sheet, not a block as deep as the frustum."""
    alpha = torch.ones(1, SIZE, SIZE)
    logits = frustum(DEPTHS // 2, 0.5)
    raised = logits + raises(logits, alpha)[:, None]
    per_cell = torch.nn.functional.softplus(SHARPNESS * decided(raised) + DENSITY_SHIFT) / CELL
    share = per_cell[0, :, 4, 4] / per_cell[0, :, 4, 4].sum()
    assert share[DEPTHS // 2 - 2 : DEPTHS // 2 + 3].sum() > 0.99


def test_a_ray_that_misses_the_cube_is_raised_no_further_than_allowed():
    hopeless = torch.full((1, DEPTHS, SIZE, SIZE), -100.0)
    assert raises(hopeless, torch.ones(1, SIZE, SIZE)).max() <= MAX_RAISE


def test_noise_is_each_object_s_own_and_smooth():
    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (1, 2)]

    noise = drawn_noise(generators())
    torch.testing.assert_close(drawn_noise(generators()[1:]), noise[1:])
    many = drawn_noise([torch.Generator().manual_seed(seed) for seed in range(50)])
    assert many.std().item() == pytest.approx(0.9 * NOISE_STD, rel=0.1)
    assert many.abs().max().item() == pytest.approx(NOISE_LIMIT * NOISE_STD, rel=1e-5)
    near = torch.tensor([[[0.1, 0.0, 0.0], [0.11, 0.0, 0.0]]])
    first, second = sample_grid(noise[:1], near).flatten().tolist()
    assert abs(first - second) < 0.3 * NOISE_STD


def test_the_silhouette_is_filled_with_noise_too():
    alpha, logits = torch.ones(1, SIZE, SIZE), frustum(3 * DEPTHS // 4, 0.5)
    noise = torch.full((1, 1, 4, 4, 4), -1.0)
    zeros = torch.zeros(1, SIZE, SIZE)
    raised = ray_raises(logits, zeros, alpha, ELEVATION, (NEAREST, FARTHEST), noise)
    inner = (0, slice(2, -2), slice(2, -2))  # all of whose ray's far part is behind the object
    torch.testing.assert_close(raised[inner], raises(logits, alpha)[inner] + 1, atol=0.05, rtol=0)


def test_the_surface_is_where_the_logits_cross_the_level():
    logits = torch.tensor([LEVEL - 0.1, LEVEL, LEVEL + 0.1])
    grid = torch.cat([decided(logits)[None], torch.ones(3, 3)])[None, :, None, None]
    shifted = surface_logits(grid)[0, :, 0, 0]
    torch.testing.assert_close(
        shifted[0], torch.tensor([-0.1, 0.0, 0.1]) * SCALE, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(shifted[1:], torch.ones(3, 3))


def test_noise_is_added_behind_and_not_where_the_photo_looks():
    towards_camera = torch.tensor([0.0, 0.0, 1.0])  # from elevation 90
    points = torch.tensor([0.3, 0.0, -UNSEEN_FROM, -0.45])[None, :, None] * towards_camera
    noise = torch.ones(1, 1, 4, 4, 4)
    added = unseen_noise(noise, points, torch.tensor([90.0]))[0, 0]
    expected = torch.tensor([0.0, 0.0, 0.5, 1.0])
    torch.testing.assert_close(added, expected, atol=0.03, rtol=0)
