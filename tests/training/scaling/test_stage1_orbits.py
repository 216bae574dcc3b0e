"""Stage 1's outputs are sampled once, and stage 2 is trained on a mixture with degraded truth."""

import pytest
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.errors import InputError
from hi3d.training.scaling.cached_training import cache_stage1_orbits
from hi3d.training.scaling.stage1_orbits import Stage1Orbits
from tests.training.test_random_state import FEW_VIEWS, load
from tests.training.test_training import build_module, debug_experiment, train


def test_cached_orbits_are_mixed_with_degraded_ones(orbits, tiny_models, tmp_path, monkeypatch):
    folder = tmp_path / "stage1"

    def experiment(*more: str):
        more = (*FEW_VIEWS, "data.batch_size=1", "data.val=null", *more)
        return debug_experiment("stage2.yaml", orbits, tiny_models, tmp_path / "run", *more)

    shares = {}
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        shares[rank] = cache_stage1_orbits(experiment(), folder)
    assert shares == {"0": 2, "1": 2}
    assert cache_stage1_orbits(experiment(), folder) == 0
    next(folder.glob("orbits-0001-*")).unlink()  # as after a kill
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("RANK", "0")
    assert cache_stage1_orbits(experiment(), folder) == 2
    assert not list(folder.glob(".*"))

    cached = [f"stage1_orbits={folder}", "trainer.max_steps=2"]
    module = build_module(experiment(*cached, "stage1_share=1", "data.batch_size=2"))
    assert not module.stage1  # the network is not needed any more
    batch = next(iter(torch.utils.data.DataLoader(OrbitDataset(orbits, 16, num_views=4), 2)))
    coarse = module.coarse_orbit(batch)
    expected = Stage1Orbits(folder).orbits(batch["uid"], 16)
    assert torch.equal(coarse[:, 0], batch["rgb"][:, 0])
    assert torch.equal(coarse[:, 1:], expected[:, 1:])

    mixed = build_module(experiment(*cached, "stage1_share=0.5"))
    drawn = []
    for step in range(40):
        mixed.position = type(mixed.position)("train", step, 0)
        coarse = mixed.coarse_orbit(batch)
        drawn += [torch.equal(coarse[i, 1:], expected[i, 1:]) for i in range(2)]
    assert 25 <= sum(drawn) <= 55  # of 80 with share 0.5: within 3.4 standard deviations
    train(experiment(*cached, "stage1_share=0.5"))
    assert load(tmp_path / "run")["global_step"] == 2

    with pytest.raises(InputError, match="other settings"):
        cache_stage1_orbits(experiment("stage1_guidance.max_scale=3"), folder)
    shard = next(folder.iterdir())
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(InputError, match="damaged"):
        build_module(experiment(*cached))


def test_cached_orbits_that_cannot_be(orbits, tiny_models, tmp_path):
    def experiment(*more: str, config: str = "stage2.yaml"):
        return debug_experiment(config, orbits, tiny_models, tmp_path / "run", *more)

    with pytest.raises(InputError, match="--stage1-orbits first"):
        build_module(experiment(f"stage1_orbits={tmp_path}"))
    with pytest.raises(InputError, match="random_start"):
        experiment("stage1_orbits=x", "data.random_start=true")
    with pytest.raises(InputError, match="stage1_share is 2"):
        experiment("stage1_share=2")
    more = ("stage1_orbits=x", "data.random_start=false")
    with pytest.raises(InputError, match="augments"):
        build_module(experiment(*more, config="nano/stage2.yaml"))
    with pytest.raises(InputError, match="no stage 1 given"):
        cache_stage1_orbits(experiment("stage1=null"), tmp_path / "stage1")
