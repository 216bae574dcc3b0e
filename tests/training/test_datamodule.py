"""Trainings from shards: a nano config, interruption anywhere, several nodes."""

import itertools
import multiprocessing
import tarfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from hi3d.errors import InputError
from hi3d.nano.tasks import ALL_TASKS
from hi3d.training.checkpoints import KeepCheckpoints
from hi3d.training.datamodule import OrbitDataModule
from hi3d.training.experiment import DataConfig
from hi3d.training.tasks import load_experiment
from hi3d.training.trainer import build_trainer, train

ROOT = Path(__file__).parents[2]


class Recorder(pl.LightningModule):
    """Notes the uids of its batches; may fail within a step."""

    def __init__(self, fail_at: int | None = None):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[list[str]] = []
        self.fail_at = fail_at

    def training_step(self, batch, batch_index):
        assert batch["rgb"].dtype == torch.float32
        assert batch["rgb"].shape[1:] == (16, 3, 8, 8)
        if self.fail_at is not None and len(self.seen) == self.fail_at:
            raise RuntimeError("power cut")
        self.seen.append(list(batch["uid"]))
        return self.layer(batch["alpha"].mean().reshape(1, 1)).sum()

    def validation_step(self, batch, batch_index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def sphere_shards(orbits, tmp_path_factory):
    """The sphere orbits twice over, in shards of 3, 3 and 2."""
    root = tmp_path_factory.mktemp("sphere_shards")
    folders = sorted(orbits.iterdir())
    members = [(f"{copy}{folder.name}", folder) for copy in "ab" for folder in folders]
    for number, first in enumerate((0, 3, 6)):
        with tarfile.open(root / f"orbits-{number:06d}.tar", "w") as tar:
            for uid, folder in members[first : first + 3]:
                for path in sorted(folder.glob("*.png")):
                    tar.add(path, f"{uid}.{path.name.replace('-depth', '.depth')}")
                tar.add(folder / "cameras.json", f"{uid}.json")
    return root


def data_config(shards, streaming, **options):
    return DataConfig(
        str(shards), str(shards), 8, 2, 0, random_start=True, streaming=streaming, **options
    )


def fit(config, output, max_steps, fail_at=None, checkpoint=None, val_every=3, save_every=1):
    recorder = Recorder(fail_at)
    experiment = load_experiment(ROOT / "configs/nano/stage1.yaml", (), ALL_TASKS)
    settings = experiment.trainer
    settings.max_steps, settings.val_every, settings.num_threads = max_steps, val_every, None
    callbacks = [KeepCheckpoints(output / "checkpoints", save_every)]
    trainer = build_trainer(experiment, callbacks, logger=False)
    data = OrbitDataModule(config, load_depth=False, seed=7)
    data.setup("fit")
    stops = pytest.raises(RuntimeError, match="power cut") if fail_at else nullcontext()
    with stops:
        trainer.fit(recorder, datamodule=data, ckpt_path=checkpoint, weights_only=False)
    return recorder.seen


@pytest.mark.parametrize("streaming", [True, False])
def test_an_interrupted_training_sees_what_it_would_have_seen(sphere_shards, tmp_path, streaming):
    """4 steps an epoch; stops within and between epochs, at saves and within a step."""
    config = data_config(sphere_shards, streaming)
    whole = fit(config, tmp_path / "whole", 10)
    assert len(whole) == 10
    for epoch in (whole[:4], whole[4:8]):
        assert len({*itertools.chain(*epoch)}) == 8
    for stop in (1, 4, 5):
        for way in ("max_steps", "crash"):
            output = tmp_path / f"{way}{stop}"
            if way == "crash":
                seen = fit(config, output, 10, fail_at=stop)
            else:
                seen = fit(config, output, stop)
            checkpoint = output / "checkpoints/last.ckpt"
            seen += fit(config, output, 10, checkpoint=str(checkpoint))
            assert seen == whole, (way, stop)


def test_interruption_within_a_step_with_workers(sphere_shards, tmp_path):
    config = data_config(sphere_shards, True)
    config.num_workers = 2
    whole = fit(config, tmp_path / "whole", 7)
    fit(config, tmp_path / "cut", 7, fail_at=3, save_every=2)
    state = torch.load(tmp_path / "cut/checkpoints/last.ckpt", weights_only=False)
    assert state["OrbitDataModule"]["batches_done"] == 3
    last = tmp_path / "cut/checkpoints/last.ckpt"
    assert fit(config, tmp_path / "on", 7, checkpoint=str(last)) == whole[3:]


def test_a_nano_config_trains_two_steps_from_a_stream(sphere_shards, tmp_path):
    experiment = load_experiment(
        ROOT / "configs/nano/vae.yaml",
        [
            f"data.train={sphere_shards}",
            f"data.val={sphere_shards}",
            "data.streaming=true",
            "data.resolution=16",
            "data.batch_size=2",
            "data.num_workers=1",
            "trainer.max_steps=2",
            "trainer.checkpoint_every=1",
            "trainer.val_every=2",
            f"trainer.output={tmp_path / 'run'}",
            "vae.crop=8",
            "vae.patch_size=4",
        ],
        ALL_TASKS,
    )
    others = set(multiprocessing.active_children())
    assert (train(experiment, ALL_TASKS) / "model_index.json").is_file()
    assert set(multiprocessing.active_children()) <= others
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=False)
    assert checkpoint["OrbitDataModule"]["batches_done"] == 2


@pytest.mark.parametrize("streaming", [True, False])
def test_two_nodes_with_two_workers_cover_an_epoch_exactly_once(
    sphere_shards, monkeypatch, streaming
):
    """RANK and WORLD_SIZE as torchrun sets them; 8 orbits in 3 shards, 4 workers in all."""
    epochs = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        config = DataConfig(str(sphere_shards), None, 8, 2, num_workers=2, streaming=streaming)
        data = OrbitDataModule(config, load_depth=False, seed=7)
        data.setup("fit")
        loader = data.train_dataloader()
        epochs.append([[batch["uid"] for batch in loader] for _ in range(4)])
        data.teardown("fit")
    for epoch in range(4):
        assert [len(node[epoch]) for node in epochs] == [2, 2]  # both take two steps
        seen = [uid for node in epochs for batch in node[epoch] for uid in batch]
        assert len(seen) == 8
        assert len({*seen}) == 8
    assert len({str(epoch) for epoch in epochs[0]}) > 1


@pytest.mark.parametrize("streaming", [True, False])
def test_loader_processes_end_with_the_training(sphere_shards, streaming):
    config = DataConfig(str(sphere_shards), None, 8, 2, num_workers=1, streaming=streaming)
    data = OrbitDataModule(config, load_depth=False, seed=7)
    data.setup("fit")
    others = set(multiprocessing.active_children())
    held = iter(data.train_dataloader())  # as a trainer's loops hold it
    next(held)
    assert set(multiprocessing.active_children()) > others
    data.teardown("fit")
    assert set(multiprocessing.active_children()) <= others


def test_lightning_tells_rank_and_size(sphere_shards, monkeypatch):
    """As under SLURM, where Lightning reads SLURM_PROCID and SLURM_NTASKS."""
    data = OrbitDataModule(data_config(sphere_shards, True), load_depth=False, seed=7)
    data.setup("fit")

    class TrainerOfSecondNode:
        global_rank, world_size = 1, 2

    data.trainer = TrainerOfSecondNode()
    share = data.train_dataloader().share
    assert (share.rank, share.world_size) == (1, 2)


def test_held_out_fold(sphere_shards):
    folds = []
    for fold in (0, 1):
        module = OrbitDataModule(data_config(sphere_shards, False, held_out_fold=fold), False)
        module.setup("fit")
        folds.append(set(module.train_orbits.uids))
        assert len(module.val_orbits) == 8
    assert len(folds[0] | folds[1]) == 8
    assert not folds[0] & folds[1]
    for options, words in (
        ({"held_out_fold": 2}, "held_out_fold=2 of data.num_folds=2"),
        ({"held_out_fold": 0, "streaming": True}, "needs data.streaming=false"),
    ):
        streaming = options.pop("streaming", False)
        config = data_config(sphere_shards, streaming, **options)
        with pytest.raises(InputError, match=words):
            OrbitDataModule(config, False).setup("fit")
