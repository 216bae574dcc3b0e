"""The training of the grid predictor: its losses fall, and what it draws follows the generator."""

import pytest
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.errors import InputError
from hi3d.nano.grid.training import (
    GridPredictorConfig,
    GridPredictorExperiment,
    GridPredictorModule,
)
from hi3d.training.experiment import DataConfig, TrainerConfig

SIZE = {"image_size": 16, "num_depths": 16, "channels": [16, 16, 32], "num_token_blocks": 1}


@pytest.fixture
def module(orbits, tmp_path) -> GridPredictorModule:
    torch.manual_seed(0)
    return GridPredictorModule(
        GridPredictorExperiment(
            task="grid_predictor",
            data=DataConfig(train=str(orbits), resolution=16),
            trainer=TrainerConfig(output=str(tmp_path)),
            grid_predictor=GridPredictorConfig(**SIZE, num_points=512, num_samples=16),
        )
    )


@pytest.fixture
def batch(orbits) -> dict:
    data_set = OrbitDataset(orbits, 16, load_depth=True)
    return next(iter(torch.utils.data.DataLoader(data_set, batch_size=4)))


def test_losses_fall(module, batch):
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    history = []
    for _ in range(40):
        orbit = module.orbits(batch, generator)
        losses = module.losses(orbit, generator, draw=True)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    for name, share in (("loss_occupancy", 0.9), ("loss_view", 0.7), ("loss_alpha", 0.7)):
        first, last = (sum(h[name] for h in part) for part in (history[:5], history[-5:]))
        assert last < share * first, name


def test_each_orbit_is_several_photos_from_other_sides(module, batch):
    torch.manual_seed(0)
    orbit = module.orbits(batch, torch.Generator().manual_seed(1))
    assert orbit.rgb.shape == (8, 16, 3, 16, 16)
    assert orbit.elevation_deg.tolist() == batch["elevation_deg"].tolist() * 2
    same = [torch.equal(orbit.depth[0].roll(shift, 0), orbit.depth[4]) for shift in range(16)]
    assert sum(same) >= 1


def test_the_same_generator_gives_the_same_losses(module, batch):
    def run() -> list[float]:
        generator = torch.Generator().manual_seed(3)
        torch.manual_seed(0)
        orbit = module.orbits(batch, generator)
        with torch.no_grad():
            return [loss.item() for loss in module.eval().losses(orbit, generator, True).values()]

    assert run() == run()


def test_a_start_of_another_size_is_one_line(orbits, tiny_models):
    config = GridPredictorConfig(**SIZE, init_from=str(tiny_models / "stage1"))
    with pytest.raises(InputError, match="another size"):
        GridPredictorModule(
            GridPredictorExperiment(data=DataConfig(train=str(orbits)), grid_predictor=config)
        )
