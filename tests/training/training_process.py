"""Trainings by scripts/train.py in processes of their own, forked from one that has its imports."""

import json
import multiprocessing
import os
import runpy
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["hi3d.nano.tasks", "hi3d.training.trainer"])
TIMEOUT_S = 540


def start(words: list[str], log: Path, **environment: str) -> BaseProcess:
    """Begin `scripts/train.py WORDS`; its output and its losses and noise go to `log`."""
    settings = {"words": [str(word) for word in words], "log": str(log), "env": environment}
    process = CONTEXT.Process(
        target=runpy.run_path, args=(__file__, {"SETTINGS": settings}, "__child__"), daemon=True
    )
    process.start()
    return process


def finish(process: BaseProcess, timeout_s: float = TIMEOUT_S) -> int | None:
    """Its exit code; None if it had to be killed since it did not end."""
    process.join(timeout_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def start_ranks(words: list[str], logs: list[Path]) -> list[BaseProcess]:
    """One process for each log, which form a training on so many devices."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [*words, f"trainer.devices={len(logs)}"]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(len(logs))}
    return [
        start(words, log, LOCAL_RANK=str(rank), NODE_RANK="0", **common)
        for rank, log in enumerate(logs)
    ]


def recorded(log: Path) -> list[dict[str, float]]:
    """Step, loss and first noise of every micro-batch that a process trained on."""
    lines = log.with_suffix(".jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def train_here(settings: dict) -> None:
    """What the child does."""
    os.environ.update(settings["env"])
    log = Path(settings["log"]).open("ab")  # noqa: SIM115
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    record(Path(settings["log"]).with_suffix(".jsonl"))
    sys.argv = ["scripts/train.py", *settings["words"]]
    runpy.run_path(str(ROOT / "scripts/train.py"), run_name="__main__")


def record(path: Path) -> None:
    """Write down what is drawn and lost."""
    from hi3d.training.diffusion_module import DiffusionModule

    step, draw = DiffusionModule.training_step, DiffusionModule.noise
    drawn = []

    def noise(module, latents):
        drawn[:] = [draw(module, latents)]
        return drawn[0]

    def training_step(module, batch, index):
        loss = step(module, batch, index)
        entry = {"step": module.trainer.global_step, "loss": loss.item()}
        entry |= {"noise": float(drawn[0].flatten()[0]), "uids": list(batch["uid"])}
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        return loss

    DiffusionModule.noise, DiffusionModule.training_step = noise, training_step


if __name__ == "__child__":
    train_here(SETTINGS)  # type: ignore[name-defined]  # noqa: F821
