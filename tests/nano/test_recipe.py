"""The small model from objects to the folders that ship, at the smallest size."""

import json
from pathlib import Path

import pytest
import torch

from hi3d.errors import InputError
from hi3d.nano.recipe import Recipe, chosen, experiment_of, is_finished, train_small_model
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline

OBJECTS = Path(__file__).parents[2] / "data/examples/objects"
TINY = (
    "orbits.resolution=32",
    "orbits.num_workers=0",
    "orbits.orbits_per_object=2",
    "data.resolution=16",
    "data.batch_size=1",
    "data.num_workers=0",
    "trainer.max_steps=1",
    "trainer.val_batches=1",
    "trainer.num_threads=1",
    "vae.vae.component_batches=1",
    "vae.vae.crop=16",
    "vae.data.resolution=32",
    "image_encoder.image_encoder.image_size=16",
    "depth.depth.image_size=16",
    "grid_predictor.data.resolution=32",
    "grid_predictor.grid_predictor.image_features=null",
    "grid_predictor.grid_predictor.image_size=16",
    "grid_predictor.grid_predictor.num_depths=8",
    "grid_predictor.grid_predictor.channels=[8,8,32]",
    "grid_predictor.grid_predictor.num_points=64",
    "stage1.unet.block_out_channels=[32,32]",
    "stage1.unet.num_attention_heads=[1,1]",
    "stage2.data.resolution=32",
    "stage2.stage1_resolution=16",
    "stage2.unet.block_out_channels=[32,32]",
    "stage2.unet.num_attention_heads=[1,1]",
)
"""`key=value` of every part."""


def recipe(output: Path, *overrides: str, cross_fit: bool = False) -> Recipe:
    return Recipe(str(OBJECTS), str(OBJECTS / "mailbox.glb"), str(output), cross_fit, overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("nano")
    train_small_model(recipe(output, *TINY, cross_fit=True))
    return output


def test_the_stages_load_in_half_precision(trained):
    stage1 = load_pipeline(OrbitPipeline, str(trained / "model/stage1"))
    stage2 = load_pipeline(RefinerPipeline, str(trained / "model/stage2"))
    assert (stage1.config.resolution, stage2.config.resolution) == (16, 32)
    assert stage1.grid_predictor is not None
    half = trained / "model/stage1/unet/diffusion_pytorch_model.safetensors"
    whole = trained / "stage1/model/unet/diffusion_pytorch_model.safetensors"
    assert 1.8 < whole.stat().st_size / half.stat().st_size < 2.2
    trained_unet = load_pipeline(OrbitPipeline, str(trained / "stage1/model")).unet
    for name, value in stage1.unet.state_dict().items():
        torch.testing.assert_close(value, trained_unet.state_dict()[name], rtol=2e-3, atol=1e-4)


def test_each_fold_has_a_predictor_that_stage2_names(trained):
    config = json.loads((trained / "stage2/report.json").read_text())["config"]
    folders = [str(trained / f"grid_predictor_{fold}/model") for fold in (0, 1)]
    assert config["stage1_cross_fitted"] == folders
    for fold in (0, 1):
        report = json.loads((trained / f"grid_predictor_{fold}/report.json").read_text())
        assert report["config"]["data"]["held_out_fold"] == fold


def test_the_same_command_trains_nothing_again(trained, monkeypatch):
    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr("hi3d.nano.recipe.train", refuse)
    train_small_model(recipe(trained, *TINY, cross_fit=True))


def test_other_settings_of_a_finished_part_are_told(trained):
    settings = recipe(trained, *TINY, "vae.optim.lr=0.5", cross_fit=True)
    with pytest.raises(InputError, match=r"vae was trained with other settings \(optim\)"):
        is_finished(experiment_of(settings, "vae"))


def test_a_setting_goes_to_its_part_or_to_all(tmp_path):
    settings = recipe(tmp_path, "seed=3", "grid_predictor.data.batch_size=2", "orbits.seed=5")
    assert chosen(settings, "vae") == ["seed=3"]
    assert chosen(settings, "grid_predictor_1") == ["seed=3", "data.batch_size=2"]
    assert chosen(settings, "orbits") == ["seed=5"]


def test_a_wrong_setting_is_told_before_anything_is_written(tmp_path):
    output = tmp_path / "nano"
    with pytest.raises(InputError, match="max_step"):
        train_small_model(recipe(output, "stage2.trainer.max_step=1"))
    assert not output.exists()


def test_a_gpu_gets_more_photos_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    settings = recipe(tmp_path, "grid_predictor.trainer.max_steps=7")
    for part in ("grid_predictor", "grid_predictor_0"):
        experiment = experiment_of(settings, part)
        photos = experiment.data.batch_size * experiment.grid_predictor.photos_per_orbit
        assert (photos, experiment.trainer.precision) == (256, "bf16-mixed")
        assert experiment.trainer.max_steps == 7
    assert experiment_of(settings, "vae").trainer.precision == "32-true"


def test_half_of_the_training_orbits_are_stretched_and_none_to_check(tmp_path, monkeypatch):
    rendered = {}
    monkeypatch.setattr(
        "hi3d.nano.recipe.render_orbits",
        lambda _, output, config: rendered.update({output: config}),
    )
    monkeypatch.setattr("hi3d.nano.recipe.train", lambda *_: None)
    monkeypatch.setattr("hi3d.nano.recipe.ship", lambda output: output)
    train_small_model(recipe(tmp_path))
    to_train, to_check = rendered[tmp_path / "orbits/train"], rendered[tmp_path / "orbits/val"]
    assert (to_train.orbits_per_object, to_train.stretch) == (4, 0.4)
    assert (to_check.orbits_per_object, to_check.stretch) == (1, 0.0)
