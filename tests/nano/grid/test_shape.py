"""The coarse shape: what it learns from, its training, and what it adds to the grid."""

import pytest
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.diffusion.weights import write_model_index
from hi3d.errors import InputError
from hi3d.nano.grid.augmentation import random_stretch, widened
from hi3d.nano.grid.point_targets import DepthOrbit, occupancy_of
from hi3d.nano.grid.predictor import MIN_SHAPE, SHAPE_SHIFT, SHAPE_WEIGHT, GridPredictor
from hi3d.nano.grid.rendering import cell_centers
from hi3d.nano.grid.shape import SHAPE_SIDE
from hi3d.nano.grid.shape_training import (
    RANGES,
    ShapeConfig,
    ShapeExperiment,
    ShapeModule,
    in_silhouette,
    shape_targets,
)
from hi3d.nano.grid.training import (
    GridPredictorConfig,
    GridPredictorExperiment,
    GridPredictorModule,
)
from hi3d.training.experiment import DataConfig, TrainerConfig
from tests.nano.untrained import predictor_folder

CENTERS = cell_centers(SHAPE_SIDE).reshape(-1, 3)


@pytest.fixture
def start(tmp_path):
    return predictor_folder(tmp_path / "start")


def with_shape() -> GridPredictor:
    """An untrained predictor with a coarse shape."""
    sizes = {"shape_channels": 32, "num_shape_blocks": 2, "num_shapes": 4}
    return GridPredictor(16, 8, (8, 8, 32), 1, with_image_features=True, **sizes).eval()


@pytest.fixture
def module(orbits, start, tmp_path) -> ShapeModule:
    torch.manual_seed(0)
    return ShapeModule(
        ShapeExperiment(
            task="shape",
            data=DataConfig(train=str(orbits), resolution=32),
            trainer=TrainerConfig(output=str(tmp_path)),
            shape=ShapeConfig(init_from=str(start), channels=32, num_shapes=16),
        )
    )


@pytest.fixture
def batch(orbits) -> dict:
    data_set = OrbitDataset(orbits, 32, load_depth=True)
    return next(iter(torch.utils.data.DataLoader(data_set, batch_size=2)))


@pytest.fixture
def orbit(batch) -> DepthOrbit:
    return DepthOrbit(batch["rgb"], batch["alpha"], batch["depth"], batch["elevation_deg"])


def rolled(orbit: DepthOrbit, view: int) -> DepthOrbit:
    """The orbit that begins with another view."""
    values = [value.roll(-view, 1) for value in (orbit.rgb, orbit.alpha, orbit.depth)]
    return DepthOrbit(*values, orbit.elevation_deg)


def test_targets_are_the_object_as_each_photo_sees_it(orbit):
    views = [0, 3, 10]
    azimuth_deg = orbit.azimuth_deg[0, views].repeat(len(orbit.rgb))
    solid, weight = shape_targets(orbit, azimuth_deg, torch.ones(len(azimuth_deg)))
    assert solid.shape == weight.shape == (6, SHAPE_SIDE**3)
    points = CENTERS.expand(len(orbit.rgb), -1, -1)
    for i, view in enumerate(views):
        true, _ = occupancy_of(rolled(orbit, view), points)
        ours = solid.view(2, 3, -1)[:, i]
        assert true.mean() > 0.01
        assert ((ours * true).sum() / torch.maximum(ours, true).sum()) > 0.75, view
    assert weight.min() > 0
    assert weight.max() == 1


def test_a_stretched_object_is_wider_from_left_to_right_alone(orbit):
    azimuth_deg = torch.zeros(len(orbit.rgb))
    extents = []
    for stretch in (1.0, 0.6):
        solid, _ = shape_targets(orbit, azimuth_deg, torch.full_like(azimuth_deg, stretch))
        inside = CENTERS[solid[0] > 0]
        extents.append(inside.amax(0) - inside.amin(0))
    cell = 1.2 / SHAPE_SIDE
    torch.testing.assert_close(extents[1][1], extents[0][1] * 0.6, atol=cell, rtol=0)
    torch.testing.assert_close(extents[1][[0, 2]], extents[0][[0, 2]], atol=cell, rtol=0)


def test_a_widened_photo_keeps_its_rows_and_its_background():
    rgba = torch.ones(1, 4, 32, 32)
    rgba[:, 3] = 0
    rgba[:, :, 8:24, 8:24] = torch.tensor([0.2, 0.4, 0.6, 1.0])[:, None, None]
    narrow = widened(rgba, torch.tensor([0.5]))
    assert narrow[0, 3].amax(0).sum() == pytest.approx(8, abs=1)
    assert narrow[0, 3].amax(1).sum() == pytest.approx(16, abs=1e-4)
    torch.testing.assert_close(narrow[0, :3, 0], torch.ones(3, 32))
    torch.testing.assert_close(widened(rgba, torch.ones(1)), rgba)


def test_stretches_lie_in_their_range():
    stretch = random_stretch(500, 0.5, torch.Generator().manual_seed(0))
    assert 0.6 < stretch.min() < 0.7
    assert 1.05 < stretch.max() < 1.11
    assert 0.4 < (stretch == 1).float().mean() < 0.6


def test_cells_beside_the_silhouette_teach_nothing(orbit):
    inside = in_silhouette(orbit.alpha[:, 0], orbit.elevation_deg)
    solid, _ = shape_targets(orbit, torch.zeros(2), torch.ones(2))
    assert (inside * solid).sum() / solid.sum() > 0.95
    assert 0.01 < inside.mean() < 0.6


def test_losses_fall_and_the_rest_of_the_network_stays(module, batch):
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    trained = [p for p in module.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    history = []
    for _ in range(30):
        losses = module.losses(batch, generator)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    for name, share in (("loss_occupancy", 0.7), ("loss_elevation", 0.8)):
        first, last = (sum(h[name] for h in part) for part in (history[:5], history[-5:]))
        assert last < share * first, name
    after = module.network.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(name.startswith("shape.") for name in changed)


def test_its_logits_join_the_density_where_they_are():
    photo = torch.ones(1, 4, 16, 16)
    elevation_deg = torch.tensor([0.0])
    torch.manual_seed(0)
    network = with_shape()
    torch.nn.init.zeros_(network.shape.shapes.weight)
    left = torch.where(CENTERS[:, 1] < 0, 4.0, -4.0)  # y points to the right of the photo
    with torch.no_grad():
        network.shape.shapes.bias.copy_(left)
        joined = network(photo, elevation_deg)
        network.shape, shape = None, network.shape
        without = network(photo, elevation_deg)
    network.shape = shape
    added = (joined.frustum - without.frustum)[0]
    assert added[1:].abs().max() == 0
    nearest = torch.tensor([SHAPE_SHIFT + SHAPE_WEIGHT * 4.0, MIN_SHAPE])
    torch.testing.assert_close(added[0, 4, 4, [2, 5]], nearest, atol=1e-3, rtol=0)


def test_the_elevation_is_the_one_of_the_shape():
    torch.manual_seed(0)
    network = with_shape()
    torch.nn.init.zeros_(network.shape.elevation_head[-1].weight)
    torch.nn.init.constant_(network.shape.elevation_head[-1].bias, 1.0)
    assert network(torch.ones(1, 4, 16, 16)).elevation_deg.item() == pytest.approx(30)


def test_what_is_exported_loads_with_its_shape(module, tmp_path):
    module.export(tmp_path / "out", module.network.eval())
    loaded = GridPredictor.from_pretrained(tmp_path / "out/grid_predictor").eval()
    photo = torch.rand(1, 4, 16, 16)
    with torch.no_grad():
        ours, theirs = module.network(photo), loaded(photo)
    torch.testing.assert_close(ours.frustum, theirs.frustum)


def test_the_grid_predictor_goes_on_with_a_shape_that_stays(orbits, tmp_path):
    network = with_shape()
    network.save_pretrained(tmp_path / "shape/grid_predictor")
    write_model_index(tmp_path / "shape", {"grid_predictor": network})
    config = GridPredictorConfig(
        image_size=16,
        num_depths=8,
        channels=[8, 8, 32],
        num_token_blocks=1,
        init_from=str(tmp_path / "shape"),
    )
    experiment = GridPredictorExperiment(data=DataConfig(train=str(orbits)), grid_predictor=config)
    module = GridPredictorModule(experiment).train()
    assert not module.network.shape.training
    assert not any(p.requires_grad for p in module.network.shape.parameters())
    photo, elevation_deg = torch.rand(2, 4, 16, 16), torch.tensor([0.0, 20.0])
    ours = module.eval().network(photo, elevation_deg)
    torch.testing.assert_close(ours.frustum, network(photo, elevation_deg).frustum)


def test_a_start_without_image_features_is_one_line(orbits, tiny_models):
    for init_from, words in ((None, "init_from is missing"), (tiny_models / "stage1", "no image")):
        config = ShapeConfig(init_from=None if init_from is None else str(init_from))
        with pytest.raises(InputError, match=words):
            ShapeModule(ShapeExperiment(data=DataConfig(train=str(orbits)), shape=config))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"num_blocks": 1}, "num_blocks is 1: give a number from 2"),
        ({"stretch_probability": 2.0}, "stretch_probability is 2.0"),
        ({"channels": 100}, "channels is 100: give a multiple of 32"),
    ],
)
def test_settings_out_of_range_are_one_line(setting, words):
    with pytest.raises(InputError, match=f"shape.{words}"):
        ShapeConfig(**setting)


def test_every_number_has_a_range():
    numbers = {n for n, value in vars(ShapeConfig()).items() if type(value) in (int, float)}
    assert numbers == set(RANGES)
