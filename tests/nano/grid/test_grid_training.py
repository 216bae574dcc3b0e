"""The training of the grid predictor: its losses fall, and what it draws follows the generator."""

import pytest
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.errors import InputError
from hi3d.nano.grid.training import (
    RANGES,
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


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"num_points": 0}, "num_points is 0: give a number from 1"),
        ({"num_samples": -3}, "num_samples is -3"),
        ({"render_from": 1.5}, "render_from is 1.5: give a number from 0 to 1"),
        ({"render_every": 0}, "render_every is 0"),
        ({"lambda_view": float("nan")}, "lambda_view is nan"),
        ({"mirror_probability": 2.0}, "mirror_probability is 2.0"),
        ({"image_size": 20}, "image_size is 20: give a multiple of 8"),
        ({"channels": [64, 128]}, "channels is .*: give 3 numbers"),
        ({"channels": [64, 128, 100]}, "channels ends in 100: give a multiple of 32"),
    ],
)
def test_settings_out_of_range_are_one_line(setting, words):
    with pytest.raises(InputError, match=f"grid_predictor.{words}") as caught:
        GridPredictorConfig(**setting)
    assert "\n" not in str(caught.value)


def test_every_number_has_a_range():
    numbers = {n for n, value in vars(GridPredictorConfig()).items() if type(value) in (int, float)}
    assert numbers == set(RANGES)
