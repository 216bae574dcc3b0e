"""Mirrored and recoloured orbits."""

import torch

from hi3d.cameras import orbit_cameras
from hi3d.nano.augmentation import augment_orbits, mirror_orbit


def point_orbit(x: float, y: float, num_views: int = 16) -> torch.Tensor:
    """Image columns at which an orbit at the horizon sees a point, as one-hot rows [V, 1, 1, W]."""
    cameras = orbit_cameras(0.0, 33, num_views)
    point = torch.tensor([x, y, 0.0, 1.0])
    seen = cameras.viewmats @ point
    columns = cameras.Ks[:, 0, 0] * seen[:, 0] / seen[:, 2] + cameras.Ks[:, 0, 2]
    return torch.nn.functional.one_hot(columns.floor().long(), 33)[:, None, None].float()


def test_a_mirrored_orbit_is_that_of_the_mirrored_point():
    # View 0 looks along -x, so the mirror is the plane y = 0.
    torch.testing.assert_close(mirror_orbit(point_orbit(0.2, 0.31)), point_orbit(0.2, -0.31))


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_each_orbit_is_drawn_alone():
    torch.manual_seed(0)
    rgb = torch.rand(40, 4, 3, 2, 2)
    batch = {"rgb": rgb, "alpha": rgb[:, :, :1], "elevation_deg": torch.arange(40)}
    result = augment_orbits(batch, 0.5, 0.0, generators(40))
    is_mirrored = (result["rgb"] != rgb).flatten(1).any(1)
    assert 10 <= is_mirrored.sum() <= 30
    mirrored = torch.stack([mirror_orbit(orbit) for orbit in rgb])
    expected = torch.where(is_mirrored[:, None, None, None, None], mirrored, rgb)
    torch.testing.assert_close(result["rgb"], expected)
    torch.testing.assert_close(result["alpha"], expected[:, :, :1])
    assert result["elevation_deg"] is batch["elevation_deg"]


def test_permuted_colors_are_the_same_in_every_view():
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 1, 1).expand(20, 4, 3, 2, 2)
    batch = {"rgb": rgb, "alpha": rgb[:, :, :1]}
    result = augment_orbits(batch, 0.0, 1.0, generators(20))["rgb"]
    torch.testing.assert_close(result.sort(2).values, rgb.sort(2).values)
    torch.testing.assert_close(result, result[:, :1].expand_as(result))
    assert (result != rgb).flatten(1).any(1).sum() >= 10
    torch.testing.assert_close(batch["rgb"], rgb)
