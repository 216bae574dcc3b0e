"""Checkpoints that are damaged, foreign, half written or full of code; exports that are cut off."""

import os
import pickle

import pytest
import torch

from hi3d.errors import InputError
from hi3d.training.callbacks import replaced_folder
from hi3d.training.checkpoints import KeepCheckpoints, fault, find_checkpoint, find_checkpoints
from tests.training.test_random_state import load
from tests.training.test_training import build_module, debug_experiment, train


def test_checkpoint_says_where_it_comes_from(orbits, tiny_models, tmp_path):
    more = ("optim.ema_decay=0.9", "seed=5")
    train(debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path / "run", *more))
    checkpoint = load(tmp_path / "run")
    assert checkpoint["hi3d"]["config"]["optim"]["ema_decay"] == 0.9
    assert (checkpoint["hi3d"]["seed"], checkpoint["hi3d"]["step"]) == (5, 2)
    assert "git_revision" in checkpoint["hi3d"]
    assert checkpoint["ema"]["num_updates"] == 2
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["last.ckpt", "step=00000001.ckpt"]  # the one before is kept


@pytest.fixture(scope="module")
def trained(orbits, tiny_models, tmp_path_factory):
    """Bytes of both checkpoints of a short training, and its network."""
    run = tmp_path_factory.mktemp("trained")
    experiment = debug_experiment("nano/vae.yaml", orbits, tiny_models, run)
    train(experiment)
    files = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    return files, build_module(experiment).network


@pytest.mark.parametrize("kind", ["truncated", "empty", "foreign", "code", "folder", "missing"])
def test_bad_last_checkpoint(kind, trained, tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    files, network = trained
    folder = tmp_path / "checkpoints"
    last, previous = folder / "last.ckpt", folder / "step=00000001.ckpt"
    folder.mkdir()
    previous.write_bytes(files[previous.name])
    if kind in ("truncated", "empty"):
        data = files["last.ckpt"]
        last.write_bytes(data[: len(data) // 2] if kind == "truncated" else b"")
    elif kind == "folder":
        last.mkdir()
    elif kind == "foreign":
        other = torch.load(previous, weights_only=True)
        other["state_dict"] = {"network.other": torch.zeros(3)}
        torch.save(other, last)
    elif kind == "code":
        torch.save({"state_dict": Payload()}, last)
    assert find_checkpoint("last", folder, network) == str(previous)
    assert not (tmp_path / "executed").exists()
    if kind != "missing":
        assert previous.name in "".join(capsys.readouterr().err.split())
        with pytest.raises(InputError, match=r"last\.ckpt") as caught:
            find_checkpoint(str(last), folder, network)
        assert "\n" not in str(caught.value)
    previous.unlink()
    if kind == "missing":
        assert find_checkpoint("last", folder, network) is None  # killed before the first
    else:
        with pytest.raises(InputError, match=r"last\.ckpt"):
            find_checkpoint("last", folder, network)


def test_pickle_is_no_checkpoint(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))
    assert fault(tmp_path / "x.ckpt", torch.nn.Linear(1, 1)) is not None


def test_killed_before_or_within_the_first_checkpoint(orbits, tiny_models, tmp_path):
    for name, more in (("a", []), ("b", ["resume=last"])):
        folder = tmp_path / name / "checkpoints"
        folder.mkdir(parents=True)
        (folder / ".last.123.part.ckpt").write_bytes(b"half")
        assert find_checkpoints(folder) == []
        train(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path / name, *more))
        assert load(tmp_path / name)["global_step"] == 2
        assert not list(folder.glob(".*"))


def test_checkpoint_on_a_full_disk_is_not_half_there(orbits, tiny_models, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hi3d.training.checkpoints.torch.save", fail)
    with pytest.raises(InputError, match="no space left"):
        train(debug_experiment("nano/vae.yaml", orbits, tiny_models, tmp_path / "run"))
    assert not list((tmp_path / "run/checkpoints").iterdir())
    assert KeepCheckpoints(tmp_path, 1).saved_step == 0


def test_an_export_that_is_cut_off_leaves_the_one_before(tmp_path):
    model = tmp_path / "model"

    def export(text: str, fails: bool = False) -> None:
        with replaced_folder(model) as folder:
            (folder / "weights").write_text(text)
            if fails:
                raise RuntimeError

    export("first")
    with pytest.raises(RuntimeError):
        export("second", fails=True)
    assert (model / "weights").read_text() == "first"
    export("third")
    assert (model / "weights").read_text() == "third"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
