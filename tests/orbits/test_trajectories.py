"""Which orbits objects get, and the presets of the configs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hi3d.cameras import FOV_DEG
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.orbits.config import OrbitRenderConfig
from hi3d.orbits.trajectories import in_part, object_orbits


@pytest.fixture
def load(request):
    def loaded(name, *overrides):
        path = request.config.rootpath / "configs" / "render_orbits" / f"{name}.yaml"
        return load_config(OrbitRenderConfig, path, overrides)

    return loaded


def test_drawn_elevations_are_stable_and_uniform():
    config = OrbitRenderConfig(seed=3, orbits_per_object=2)
    drawn = np.array([object_orbits(config, f"o{i}")[0].elevation_deg for i in range(2000)])
    assert drawn.min() >= -10
    assert drawn.max() < 40
    # U[-10, 40]: mean 15, standard deviation 50 / sqrt(12) = 14.43
    assert abs(drawn.mean() - 15) < 1
    assert abs(drawn.std() - 14.43) < 0.5
    first, second = object_orbits(config, "o7")
    assert first.elevation_deg == object_orbits(OrbitRenderConfig(seed=3), "o7")[0].elevation_deg
    assert first.elevation_deg != second.elevation_deg
    assert first.elevation_deg != object_orbits(OrbitRenderConfig(seed=4), "o7")[0].elevation_deg
    assert (first.uid, second.uid) == ("o7-orbit00", "o7-orbit01")


def test_drawn_start_azimuths():
    config = OrbitRenderConfig(start_azimuth_deg="random", num_views=4)
    starts = np.array([object_orbits(config, f"o{i}")[0].start_azimuth_deg for i in range(2000)])
    assert starts.min() >= 0
    assert starts.max() < 360
    assert abs(starts.mean() - 180) < 7  # standard error 360 / sqrt(12 * 2000) = 2.3
    orbit = object_orbits(config, "o1")[0]
    azimuths = orbit.cameras(config).azimuth_deg
    expected = (orbit.start_azimuth_deg + torch.tensor([0.0, 90, 180, 270])) % 360
    assert torch.allclose(azimuths, expected, atol=1e-3)
    # Elevation and azimuth are separate draws.
    elevations = [object_orbits(config, f"o{i}")[0].elevation_deg for i in range(2000)]
    assert abs(np.corrcoef(starts, elevations)[0, 1]) < 0.07


def test_the_second_half_of_the_orbits_is_stretched():
    config = OrbitRenderConfig(orbits_per_object=3, stretch=0.4)
    plain = OrbitRenderConfig(orbits_per_object=3)
    drawn = [object_orbits(config, f"o{i}") for i in range(1000)]
    assert [orbit.stretch is None for orbit in drawn[0]] == [True, True, False]
    assert drawn[0][:2] == object_orbits(plain, "o0")[:2]
    assert object_orbits(replace(config, orbits_per_object=4), "o0")[2] == drawn[0][2]
    assert object_orbits(replace(config, seed=1), "o0")[2].stretch != drawn[0][2].stretch
    stretches = [orbits[2].stretch for orbits in drawn]
    logs = np.log([stretch.factors for stretch in stretches])
    assert np.abs(logs).max() < 0.4
    assert np.abs(logs.mean(0)).max() < 0.03
    assert np.abs(logs.std(0) - 0.8 / 12**0.5).max() < 0.02
    assert np.abs(np.corrcoef(logs.T) - np.eye(3)).max() < 0.1
    angles = np.array([stretch.angle_deg for stretch in stretches])
    assert 0.4 < (angles == 0).mean() < 0.6
    assert 80 < angles.max() < 90


@pytest.mark.parametrize("settings", [{}, {"elevation_deg": 20}, {"elevation_deg": [0.0, 10.0]}])
def test_a_stretch_needs_a_second_drawn_orbit(settings):
    with pytest.raises(InputError, match="elevation_deg=random with orbits_per_object=2"):
        OrbitRenderConfig(stretch=0.4, **settings)


def test_paper_preset(load):
    config = load("paper")
    (orbit,) = object_orbits(config, "o")
    cameras = orbit.cameras(config)
    assert (len(cameras), cameras.width) == (16, 1024)
    assert orbit.start_azimuth_deg == 0
    assert torch.allclose(cameras.positions.norm(dim=-1), torch.tensor(1.5))
    assert torch.allclose(cameras.azimuth_deg, torch.arange(16) * 22.5, atol=1e-3)


def test_official_preset(load):
    config = load("official")
    orbits = object_orbits(config, "o")
    assert [orbit.elevation_deg for orbit in orbits] == [-10, 0, 10, 20, 30, 40]
    assert sum(len(orbit.cameras(config)) for orbit in orbits) == 96


def test_evaluation_preset(load):
    config = load("evaluation")
    (orbit,) = object_orbits(config, "o")
    cameras = orbit.cameras(config)
    assert torch.allclose(cameras.elevation_deg, torch.tensor(30.0), atol=1e-3)
    # Of the SyncDreamer sets: K has f = 280 and c = 128; view 0 looks along -x from above.
    K = torch.tensor([[280.0, 0, 128], [0, 280, 128], [0, 0, 1]])
    assert torch.allclose(cameras.Ks[0], K, atol=1e-3)
    R = torch.tensor([[0, 1, 0], [0.5, 0, -0.8660254], [-0.8660254, 0, -0.5]])
    assert torch.allclose(cameras.viewmats[0, :3, :3], R, atol=1e-6)


def test_overrides(load):
    assert load("paper").fov_deg == FOV_DEG
    assert load("paper", "elevation_deg=-7.5").elevation_deg == -7.5
    assert load("paper", "elevation_deg=[0,30]").elevation_deg == [0, 30]
    assert load("paper", "start_azimuth_deg=random").start_azimuth_deg == "random"
    assert load("paper", "shard=3/16").part == (3, 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "zip"},
        {"image_format": "jpeg"},
        {"depth_bits": 12},
        {"shading": "neon"},
        {"executor": "slurm"},
        {"elevation_deg": "high"},
        {"elevation_deg": 90},
        {"elevation_deg": []},
        {"elevation_deg": [0, "up"]},
        {"elevation_deg": 20, "orbits_per_object": 2},
        {"stretch": -0.1, "orbits_per_object": 2},
        {"stretch": 2.1, "orbits_per_object": 2},
        {"stretch": float("nan"), "orbits_per_object": 2},
        {"start_azimuth_deg": "front"},
        {"num_views": 0},
        {"num_workers": -1},
        {"object_memory_gb": 0.0},
        {"distance": 3.0},
        {"fov_deg": 180.0},
        {"shard": "4/4"},
        {"shard": "0/1000000000"},
        {"shard": "1"},
        {"format": "official"},
        {"executor": "ray", "num_workers": 0},
    ],
)
def test_bad_settings(changes):
    with pytest.raises(InputError) as caught:
        OrbitRenderConfig(**changes)
    assert next(iter(changes)).split("_")[0] in str(caught.value)


def test_depth_limits_the_distance():
    assert OrbitRenderConfig(distance=3.0, depth_bits=0).distance == 3


def test_parts_are_a_split():
    parts = [[in_part(f"o{i}", part, 4) for part in range(4)] for i in range(1000)]
    assert all(sum(row) == 1 for row in parts)
    counts = np.array(parts).sum(axis=0)
    assert counts.min() > 200  # 250 expected, standard deviation sqrt(1000 * 3 / 16) = 13.7
