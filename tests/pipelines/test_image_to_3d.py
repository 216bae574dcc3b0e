"""The chain at tiny size: files, report, seeds, resuming after an interruption."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hi3d.assets.surface_mesh import load_mesh
from hi3d.config import load_config
from hi3d.errors import InputError
from hi3d.mesh import is_closed
from hi3d.pipelines import image_to_3d
from hi3d.pipelines.image_to_3d import GenerateConfig, Photo
from hi3d.pipelines.loading import load_pipeline
from hi3d.pipelines.many.generate import generate
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.pipelines.run_folder import holds_results
from hi3d.pipelines.steps import Context
from hi3d.settings import settings_of
from hi3d.surface.neus.start import predicted_field
from hi3d.views import ReferenceImage, Views
from tests.pipelines.tiny_settings import TINY

MAX_KEYS = 66
"""60, and the schedulers of both stages, memory, its dry run, where the elevation comes from, what
refines, and walls with print."""


@pytest.fixture
def photo(tmp_path) -> Path:
    """A disc on a transparent background."""
    y, x = np.mgrid[:64, :64]
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[..., 3] = 255 * ((y - 32) ** 2 + (x - 32) ** 2 < 400)
    path = tmp_path / "disc.png"
    Image.fromarray(pixels).save(path)
    return path


def config(models: Path, *more: str) -> GenerateConfig:
    folders = [f"stage1={models / 'stage1'}", f"stage2={models / 'stage2'}"]
    return load_config(GenerateConfig, None, [*TINY, *folders, *more])


def png_bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.png"))
    }


def test_chain_writes_what_the_interface_says(photo, tiny_models, tmp_path):
    folder = generate([str(photo)], str(tmp_path / "out"), config(tiny_models))[0]
    assert folder == tmp_path / "out" / "disc"
    for name in ("reference.png", "splats.ply", "mesh.glb", "turntable.mp4", "index.html"):
        assert (folder / name).stat().st_size > 0, name
    assert len(Views.load(folder / "orbit")) == len(Views.load(folder / "refined")) == 16
    mesh = load_mesh(folder / "mesh.glb")
    assert is_closed(mesh)
    assert mesh.texture is not None
    report = json.loads((folder / "report.json").read_text())
    steps = report["steps"]
    assert list(steps) == [
        "foreground", "stage1", "stage2", "splats", "neus", "texture", "turntable", "contact_sheet",
        "page",
    ]  # fmt: skip
    assert all(step["seconds"] >= 0 and step["peak_memory_gb"] > 0 for step in steps.values())
    assert report["seed"] == 0
    assert not list(folder.rglob("*.part*"))


def test_same_seed_same_bytes_other_seed_other_bytes(photo, tiny_models, tmp_path):
    runs = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        made = generate([str(photo)], str(tmp_path / name), config(tiny_models, f"seed={seed}"))
        runs[name] = png_bytes(made[0])
    assert runs["a"] == runs["b"]
    assert runs["a"]["orbit/005.png"] != runs["c"]["orbit/005.png"]
    assert runs["a"]["refined/005.png"] != runs["c"]["refined/005.png"]


@pytest.mark.parametrize("step", ["load_pipeline", "reconstruct_mesh", "write_turntable"])
def test_resume_after_an_interruption(photo, tiny_models, tmp_path, monkeypatch, step):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    output = str(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(image_to_3d, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            generate([str(photo)], output, config(tiny_models))
    before = png_bytes(tmp_path / "out" / "disc")
    assert "reference.png" in before
    with pytest.raises(InputError, match="resume=true"):
        generate([str(photo)], output, config(tiny_models))
    folder = generate([str(photo)], output, config(tiny_models, "resume=true"))[0]
    assert (folder / "contact_sheet.png").exists()
    after = png_bytes(folder)
    assert {name: after[name] for name in before} == before
    whole = generate([str(photo)], str(tmp_path / "whole"), config(tiny_models))[0]
    assert png_bytes(whole) == after


def steps_made(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "report.json").read_text())["steps"]


def test_what_changed_is_made_again_with_all_after_it(photo, tiny_models, tmp_path, capsys):
    output = str(tmp_path / "out")
    folder = generate([str(photo)], output, config(tiny_models))[0]
    whole = steps_made(folder)

    def again(*words: str) -> list[str]:
        """The steps that a resumed run made."""
        report = json.loads((folder / "report.json").read_text())
        report["steps"] = {name: {**step, "old": True} for name, step in report["steps"].items()}
        (folder / "report.json").write_text(json.dumps(report))
        generate([str(photo)], output, config(tiny_models, "resume=true", *words))
        after = steps_made(folder)
        assert list(after) == list(whole)
        return [name for name in after if "old" not in after[name]]

    assert again() == []
    assert again("turntable.num_frames=6") == ["turntable", "contact_sheet", "page"]
    assert "turntable.num_frames was 4, is 6" in "".join(capsys.readouterr().err.splitlines())
    words = ["turntable.num_frames=6", "mesh.neus.steps=5"]
    assert again(*words) == list(whole)[4:]
    assert again(*words, "orbit.guidance.max_scale=2") == list(whole)[1:]
    with Image.open(photo) as image:
        pixels = np.array(image)
    pixels[:30, :, 1] = 150  # another object under the same name
    Image.fromarray(pixels).save(photo)
    reference = (folder / "reference.png").read_bytes()
    assert again(*words, "orbit.guidance.max_scale=2") == list(whole)
    assert (folder / "reference.png").read_bytes() != reference


def test_neus_is_given_the_object_that_the_orbit_shows(photo, tiny_models, monkeypatch):
    settings, given = config(tiny_models, "seed=3"), []
    monkeypatch.setattr(image_to_3d, "reconstruct_mesh", lambda *a: given.extend(a))
    image_to_3d.image_to_3d(photo, settings)
    views, *_, reference, start = given
    elevation_deg = views.cameras.elevation_deg[0].item()
    stage1 = load_pipeline(OrbitPipeline, settings.stage1)
    grid = stage1.predicted_grid(reference, elevation_deg, torch.Generator().manual_seed(3))
    torch.testing.assert_close(start().sdf, predicted_field(*grid).sdf)


def test_stage_1_is_loaded_once(photo, tiny_models, monkeypatch):
    loaded = []
    load = image_to_3d.load_pipeline
    monkeypatch.setattr(image_to_3d, "load_pipeline", lambda *a: loaded.append(a[0]) or load(*a))
    image_to_3d.image_to_3d(photo, config(tiny_models))
    assert loaded == [OrbitPipeline, RefinerPipeline]


def test_a_model_that_predicts_no_grid_starts_from_the_hull(tiny_models, tmp_path):
    models = shutil.copytree(tiny_models, tmp_path / "models")
    index = json.loads((models / "stage1/model_index.json").read_text())
    (models / "stage1/model_index.json").write_text(
        json.dumps({**index, "grid_predictor": [None, None]})
    )
    reference = ReferenceImage(torch.ones(3, 8, 8), torch.ones(1, 8, 8))
    given = Photo(reference, "", 0.0, 5.0, config(models))
    assert image_to_3d.predicted_start(Context(given)) is None


def test_a_result_that_no_report_names_is_made_again(photo, tiny_models, tmp_path):
    output = str(tmp_path / "out")
    folder = generate([str(photo)], output, config(tiny_models))[0]
    report = json.loads((folder / "report.json").read_text())
    del report["steps"]["contact_sheet"]
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "contact_sheet.png").write_text("of a run that was killed")
    generate([str(photo)], output, config(tiny_models, "resume=true"))
    assert Image.open(folder / "contact_sheet.png").size[0] > 0


@pytest.mark.parametrize("word", ["stage1=nowhere", "stage2=nowhere", "elevation_deg=auto"])
def test_a_wrong_setting_leaves_nothing_behind(photo, tiny_models, tmp_path, word):
    models = tmp_path / "models"
    shutil.copytree(tiny_models, models)
    index = json.loads((models / "stage1/model_index.json").read_text())
    for part in ("elevation_estimator", "grid_predictor"):
        index[part] = [None, None]
    (models / "stage1/model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="elevation_deg" if "elev" in word else "nowhere"):
        generate([str(photo)], str(tmp_path / "out"), config(models, "elevation_deg=5", word))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_what_finder_leaves_is_empty(tmp_path):
    assert not holds_results(tmp_path, resume=False)
    for name in (".DS_Store", "Thumbs.db", ".report.7.part.json"):
        (tmp_path / name).touch()
    assert not holds_results(tmp_path, resume=False)
    (tmp_path / "mesh.glb").touch()
    with pytest.raises(InputError, match="resume=true"):
        holds_results(tmp_path, resume=False)


def test_a_dry_run_prints_the_memory_plan_and_makes_nothing(tiny_models, tmp_path, capsys):
    settings = config(tiny_models, "dry_run=true", "memory=low")
    assert generate(["no such photo.png"], str(tmp_path / "out"), settings) == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["stage", "step", "weights", "activations", "peak"]
    steps = [line.split()[:2] for line in lines[2:]]
    stage2 = ["encode", "depth", "denoise", "decode"]
    assert steps == [["stage1", s] for s in ("encode", "denoise", "decode")] + [
        ["stage2", s] for s in stage2
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["memory=tiny", "elevation_from=sun", "orbit.scheduler=ddim"])
def test_unknown_choices_are_one_line(tiny_models, word):
    with pytest.raises(InputError, match=word.partition("=")[0].rpartition(".")[2]):
        config(tiny_models, word)


def test_one_bad_photo_does_not_stop_the_others(photo, tiny_models, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(InputError, match=r"bad\.png"):
        generate([str(bad), str(photo)], str(tmp_path / "out"), config(tiny_models))
    assert (tmp_path / "out/disc/mesh.glb").exists()
    assert not (tmp_path / "out/bad").exists()


def test_photos_of_one_name_are_refused(photo, tiny_models, tmp_path):
    (tmp_path / "b").mkdir()
    other = shutil.copy(photo, tmp_path / "b")
    with pytest.raises(InputError, match="same name"):
        generate([str(photo), str(other)], str(tmp_path / "out"), config(tiny_models))


def test_keys_are_few_and_each_has_a_description():
    keys = settings_of("hi3d.pipelines.image_to_3d:GenerateConfig")
    assert len(keys) <= MAX_KEYS
    assert [setting.key for setting in keys if not setting.text] == []


def test_without_a_folder_nothing_is_written(photo, tiny_models, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    settings = config(tiny_models)
    with Image.open(photo) as image:
        result = image_to_3d.image_to_3d(image, settings)
    assert not list((tmp_path / "empty").iterdir())
    folder = generate([str(photo)], str(tmp_path / "out"), settings)[0]
    kept = ReferenceImage.load(folder / "reference.png")
    assert torch.allclose(result.reference.rgb, kept.rgb, atol=0.5 / 255 + 1e-6)
    assert len(result.orbit) == len(result.refined) == 16
    assert is_closed(result.mesh)
    assert result.mesh.texture is not None


def test_several_seeds_lie_side_by_side_and_go_on(photo, tiny_models, tmp_path, monkeypatch):
    calls = []
    load, cut_out = image_to_3d.load_pipeline, image_to_3d.extract_foreground
    with monkeypatch.context() as patch:
        patch.setattr(image_to_3d, "load_pipeline", lambda *a: calls.append(a) or load(*a))
        patch.setattr(image_to_3d, "extract_foreground", lambda *a: calls.append(a) or cut_out(*a))
        (folder,) = generate([str(photo)], str(tmp_path / "out"), config(tiny_models, "seed=[3,4]"))
    assert len(calls) == 3  # one matting, one of each stage
    report = json.loads((folder / "report.json").read_text())
    apart = report["steps"]["seeds"]["psnr_between_seeds"]
    assert report["seed"] == [3, 4]
    assert apart["pairs"] == 1
    assert len(apart["by_azimuth_db"]) == 16
    assert apart["front_db"] > 0
    assert apart["behind_db"] > 0
    assert Image.open(folder / "seeds.png").size == (256 + 8 * 128, 4 * 144)
    (alone,) = generate([str(photo)], str(tmp_path / "alone"), config(tiny_models, "seed=4"))
    assert png_bytes(folder / "seed_4") == png_bytes(alone)
    before = steps_made(folder / "seed_3")
    (folder / "seeds.png").unlink()
    shutil.rmtree(folder / "seed_4")
    generate([str(photo)], str(tmp_path / "out"), config(tiny_models, "seed=[3,4]", "resume=true"))
    assert steps_made(folder / "seed_3") == before
    assert png_bytes(folder / "seed_4") == png_bytes(alone)
    assert (folder / "seeds.png").exists()


@pytest.mark.parametrize(
    "word", ["seed=[]", "seed=[1,1]", "seed=[0,-1]", "seed=[0,a]", "seed=x", "seed=1.5", "seed=yes",
             "seed=null", "seed={a: 1}", "seed=[[1]]"]
)  # fmt: skip
def test_what_is_no_seed_is_one_line(word):
    with pytest.raises(InputError, match="seed is"):
        load_config(GenerateConfig, None, [word])


def test_one_result_takes_one_seed(photo, tiny_models):
    with pytest.raises(InputError, match="one result has one seed"):
        image_to_3d.image_to_3d(photo, config(tiny_models, "seed=[1,2]"))
