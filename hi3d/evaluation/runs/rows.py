"""One row of a table: made by a worker, kept in a file that is complete or not there."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hi3d.evaluation.object_sets import ScoredObject
from hi3d.evaluation.runs.config import MethodConfig, TablesConfig
from hi3d.evaluation.runs.outputs import make_output
from hi3d.evaluation.runs.pictures import draw_pictures
from hi3d.evaluation.runs.scoring import consistency_of, score_output
from hi3d.evaluation.score_table import ScoreRow
from hi3d.evaluation.truth import Truth, content_files, load_truth
from hi3d.files import make_folder, parse_json, write_json
from hi3d.mesh import save_mesh
from hi3d.progress import console, set_quiet
from hi3d.workers.pool import WORKER_VARIABLE


@dataclass(frozen=True)
class RowJob:
    """One object by one method with one seed."""

    entry: ScoredObject
    method: str
    seed: int | None
    config: TablesConfig
    output: Path
    """Of the run."""

    @property
    def settings(self) -> MethodConfig:
        """Of the method."""
        return self.config.methods[self.method]

    @property
    def folder(self) -> Path:
        """Of the row's files, relative to the run's."""
        seed = "all" if self.seed is None else str(self.seed)
        return Path("objects") / safe_name(self.entry.name) / safe_name(self.method) / seed

    @property
    def result(self) -> Path:
        """The file that proves the row done."""
        return self.output / self.folder / "row.json"

    def key(self) -> str:
        """A hash of everything that the row depends on."""
        digest = hashlib.sha256(json.dumps(self.config.content(self.method)).encode())
        digest.update(f"{self.entry.azimuth_deg} {self.entry.up} {self.seed}".encode())
        with contextlib.suppress(OSError):  # a missing file is the row's own failure
            for path in content_files(self.entry.path):
                digest.update(path.read_bytes())
        return digest.hexdigest()


def safe_name(name: str) -> str:
    """A name as one part of a path: what could leave the folder, or hide there, is replaced."""
    plain = "".join(c if c.isalnum() or c in "._-+" else "_" for c in name).lstrip(".")
    tag = hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain if plain == name and len(name) < 100 else f"{plain[:80]}-{tag}"


def made_row(job: RowJob) -> ScoreRow | None:
    """The row as an earlier run made it; None where it is to be made."""
    try:
        content = parse_json(job.result.read_bytes())
        return ScoreRow(**content["row"]) if content["key"] == job.key() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_row(job: RowJob, row: ScoreRow, notes: Sequence[str] = ()) -> ScoreRow:
    """Write the row's file with what was unusual about its scores, and give the row."""
    plain: dict[str, Any] = asdict(row)
    plain["scores"] = {name: row.value(name) for name in row.scores}
    write_json(job.result, {"key": job.key(), "row": plain, "notes": list(notes)})
    return row


def failed_row(job: RowJob, failure: str) -> ScoreRow:
    """The row of an object that failed."""
    return ScoreRow(job.method, job.entry.name, job.seed, {}, failure)


def make_row(job: RowJob) -> ScoreRow:
    """Make views and mesh of the job's object, and score them.

    Raises:
        InputError: the object or what the method made of it is missing or broken.
    """
    if torch.cuda.is_available():
        index = int(os.environ.get(WORKER_VARIABLE, "0"))
        torch.cuda.set_device(index % torch.cuda.device_count())
    truth = load_truth(job.entry, job.config.truth)
    make_folder(job.output / job.folder)
    steps = steps_folder(job, truth)
    was_quiet = console.quiet
    set_quiet(True)  # the bars of each step would run into that of the table
    try:
        made, seconds = make_output(
            job.settings, job.seed, job.entry.name, truth, steps, job.config.meshes
        )
    finally:
        set_quiet(was_quiet)
    scored = score_output(job.config.protocol, made.rgb, made.mesh, truth, job.config.meshes)
    if job.config.consistency and made.rgb is not None and job.settings.kind != "repeat":
        more = consistency_of(made.rgb, truth, job.config.protocol)
        scored = replace(
            scored, scores=scored.scores | more.scores, notes=scored.notes + more.notes
        )
    pictures = draw_pictures(job.output, job.folder, scored.shown, truth, scored.kind)
    meshes = {}
    if made.mesh is not None:
        files = {"ours": job.folder / "mesh.glb", "truth": job.folder.parents[1] / "truth.glb"}
        save_mesh(made.mesh, job.output / files["ours"])
        save_mesh(truth.mesh, job.output / files["truth"])
        meshes = {kind: path.as_posix() for kind, path in files.items()}
    row = ScoreRow(
        *(job.method, job.entry.name, job.seed, scored.scores, None),
        *(seconds or None, pictures, meshes),
    )
    return save_row(job, row, scored.notes)


def steps_folder(job: RowJob, truth: Truth) -> Path:
    """The folder of the row's steps, which begins with those of a method made before.

    Steps whose settings differ are made again, so that methods which differ late share the rest.

    Args:
        job: of the row.
        truth: of the object; another one has another folder.
    """
    models = str(job.config.content(job.method).get("models", ""))
    name = "-".join(filter(None, (job.settings.kind, truth.folder.name[:8], models)))
    folder = job.output / job.folder / name
    earlier = list(job.config.methods)[: list(job.config.methods).index(job.method)]
    for method in reversed(earlier):
        other = replace(job, method=method)
        if folder.exists() or not (made_row(other) and (job.output / other.folder / name).is_dir()):
            continue
        partial = folder.with_name(f".{name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(job.output / other.folder / name, partial)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder
