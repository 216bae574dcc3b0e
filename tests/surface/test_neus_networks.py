import math

import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.surface.grid import GridField
from hi3d.surface.neus import network_fit, networks
from hi3d.surface.neus.config import NeusConfig
from hi3d.surface.neus.fit import fit_neus
from hi3d.surface.neus.marching import Sections, cell_values, march, section_weights
from hi3d.surface.neus.network_fit import hull_cells, rate_factor, render_sections
from hi3d.surface.neus.networks import (
    FieldKind,
    FieldNetwork,
    FrequencyEncoding,
    NetworkConfig,
)
from hi3d.surface.neus.rays import PixelSampler, Rays
from hi3d.surface.visual_hull import hull_sdf

RADIUS = 0.4  # of the ball
ORBIT = orbit_cameras(20.0, 48, 8)
SMALL = NetworkConfig(rays_per_step=64, lr=3e-3, layers=4, size=48)


@pytest.fixture
def small_settings(monkeypatch):
    monkeypatch.setattr(network_fit, "MARCH_RESOLUTION", 24)
    monkeypatch.setattr(network_fit, "UPDATE_EVERY", 20)
    monkeypatch.setattr(networks, "NUM_OCTAVES", 3)


def test_frequency_encoding_by_hand():
    encoded = FrequencyEncoding(2)(torch.tensor([[0.5, 0.0, 1.0]]))
    by_hand = [math.sin(0.5), 0.0, math.sin(1.0), math.sin(1.0), 0.0, math.sin(2.0)]
    assert encoded.shape == (1, 15)
    assert torch.allclose(encoded[0, 3:9], torch.tensor(by_hand))
    assert torch.allclose(encoded[0, 9:].square() + encoded[0, 3:9].square(), torch.ones(6))


def test_the_network_starts_as_a_sphere():
    torch.manual_seed(0)
    network = FieldNetwork(8, 128)
    directions = torch.nn.functional.normalize(torch.randn(200, 3), dim=-1)
    sdf, gradients, rgb = network(directions * 0.5)
    assert (sdf > 0).all()
    assert (network.geometry(directions * 0.1)[0] < 0).all()
    assert ((gradients * directions).sum(-1) > 0.5).all()
    assert rgb.shape == (200, 3)
    assert rgb.requires_grad
    with torch.no_grad():
        read = network(directions * 0.5)
    for value, trained in zip(read, (sdf, gradients, rgb), strict=True):
        assert not value.requires_grad
        assert torch.allclose(value, trained, atol=1e-6)
    difference = 1e-3 * torch.eye(3)[0]
    shifted = network.geometry(directions * 0.5 + difference)[0]
    back = network.geometry(directions * 0.5 - difference)[0]
    assert torch.allclose((shifted - back) / 2e-3, gradients[:, 0], atol=0.02)


def some_rays(count: int, device: str = "cpu") -> Rays:
    generator = torch.Generator().manual_seed(1)
    origins = 1.5 * torch.nn.functional.normalize(
        torch.randn(count, 3, generator=generator), dim=-1
    )
    targets = 0.3 * torch.randn(count, 3, generator=generator)
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    ones = torch.ones(count, device=device)
    return Rays(origins.to(device), directions.to(device), ones[:, None].expand(-1, 3), ones, ones)


def test_sections_lie_in_occupied_cells():
    occupied = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(2)) < 0.4
    rays, step = some_rays(40), 0.03
    sections = march(rays, occupied, 0.5, step, torch.Generator().manual_seed(3))
    middles = (sections.t_starts + sections.t_ends) / 2
    of_ray = sections.ray_indices
    points = rays.origins[of_ray] + middles[:, None] * rays.directions[of_ray]
    assert (points.abs() < 0.5 + 1e-5).all()
    assert cell_values(occupied, points, 0.5).all()
    assert (of_ray.diff() >= 0).all()
    same = of_ray.diff() == 0
    gaps = middles.diff()[same] / step
    assert torch.allclose(gaps, gaps.round(), atol=1e-3)  # whole sections are left out
    assert gaps.min() > 0.9
    # Together they are as long as what of the rays lies in occupied cells.
    t = torch.linspace(0, 3, 6001)
    along = rays.origins[:, None] + t[:, None] * rays.directions[:, None]
    inside = (along.abs() < 0.5).all(-1) & cell_values(occupied, along, 0.5)
    length = inside.float().mean(1).sum() * 3
    assert len(middles) * step == pytest.approx(length.item(), rel=0.05)


def test_section_weights_against_a_loop():
    counts = [3, 0, 5, 1]
    of_ray = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    alphas = torch.rand(9, generator=torch.Generator().manual_seed(4), requires_grad=True)
    sections = Sections(of_ray, torch.zeros(9), torch.zeros(9))
    weights = section_weights(alphas, sections, 5)
    through, expected, ray = 1.0, [], -1
    for i, alpha in enumerate(alphas.tolist()):
        through = 1.0 if of_ray[i] != ray else through
        ray = of_ray[i]
        expected.append(alpha * through)
        through *= 1 - alpha
    assert torch.allclose(weights, torch.tensor(expected))
    weights.sum().backward()
    assert alphas.grad.abs().min() > 0


@pytest.mark.skipif("not torch.cuda.is_available()", reason="no CUDA device")
def test_cuda_marches_like_torch():
    occupied = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(2)) < 0.4
    results = []
    for device in ("cpu", "cuda"):
        rays = some_rays(200, device)
        generator = torch.Generator(device).manual_seed(3)
        sections = march(rays, occupied.to(device), 0.5, 0.01, generator)
        alphas = torch.full_like(sections.t_starts, 0.1)
        weights = section_weights(alphas, sections, 200)
        results.append(torch.zeros(200).index_add(0, sections.ray_indices.cpu(), weights.cpu()))
    # Offsets differ, and with them a section at either end of each stretch.
    assert (results[0] - results[1]).abs().mean() < 0.05


def test_hull_cells_hold_the_ball(ball_views):
    hull = hull_sdf(ball_views(ORBIT), 16, 0.55)
    cells = hull_cells(GridField(hull, torch.zeros(16, 16, 16, 3), 0.55), 24)
    directions = torch.nn.functional.normalize(torch.randn(300, 3), dim=-1)
    assert cell_values(cells, RADIUS * directions, 0.55).all()
    assert cells.float().mean() < 0.7


def test_a_ball_comes_out_right(small_settings, ball_views):
    config = NeusConfig(
        field=FieldKind.mlp,
        steps=50,
        resolutions=[16, 32],
        resolution_starts=[0, 0.5],
        network=SMALL,
    )
    views = ball_views(ORBIT)
    field = fit_neus(views, config, 0)
    directions = torch.nn.functional.normalize(torch.randn(400, 3), dim=-1)
    directions = directions[directions[:, 2] > -0.3]
    sdf, rgb = field.query(RADIUS * directions)
    assert sdf.abs().mean() < 0.02  # it began 0.05 away
    assert field.query(0.3 * directions)[0].max() < 0
    assert field.query(0.5 * directions)[0].min() > 0
    assert rgb.isfinite().all()


def test_the_seed_decides(small_settings, ball_views):
    config = NeusConfig(
        field=FieldKind.mlp, steps=3, resolutions=[16], resolution_starts=[0], network=SMALL
    )
    fields = [fit_neus(ball_views(ORBIT), config, seed).sdf for seed in (0, 0, 1)]
    assert torch.equal(fields[0], fields[1])
    assert not torch.equal(fields[0], fields[2])


def test_rates_rise_and_fall():
    assert rate_factor(0.0) < 0.05
    assert rate_factor(0.05) == pytest.approx(1.0)
    assert rate_factor(0.525) == pytest.approx(0.525)
    assert rate_factor(1.0) == pytest.approx(0.05)


def test_pixels_without_sections_are_white(ball_views):
    """Rays that meet no cell still have a colour and an opacity."""
    network = FieldNetwork(4, 48)
    rays = PixelSampler(ball_views(ORBIT)).sample(20, torch.Generator().manual_seed(0))
    nothing = Sections(torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0))
    rgb, opacity, gradients = render_sections(network, rays, nothing, torch.tensor(60.0), 1.0)
    assert torch.equal(rgb, torch.ones(20, 3))
    assert not opacity.any()
    assert gradients.shape == (0, 3)


@pytest.mark.parametrize("key", ["rays_per_step", "lr", "layers", "size"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_sizes_out_of_their_range_are_one_line(key, value):
    with pytest.raises(InputError, match=rf"^neus\.network\.{key} is .*: give a number"):
        NetworkConfig(**{key: value})
