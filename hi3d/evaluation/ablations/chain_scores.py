"""Scores of one run of the chain against the truth, with the strips that show them."""

import json
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hi3d.assets.surface_mesh import load_mesh, surface_mesh_to_object
from hi3d.evaluation.ablations.truth import ObjectTruth
from hi3d.evaluation.mesh_metrics import score_mesh
from hi3d.evaluation.score_table import Column, ScoreRow
from hi3d.evaluation.view_metrics import MAX_PSNR, psnr, ssim
from hi3d.files import atomic_path
from hi3d.rendering.rasterizer import render_views
from hi3d.views import Views

PROTOCOL = "whole chain: 16 views at the truth's size, view 0 included; surface Chamfer"
COLUMNS = {
    "psnr": Column("PSNR", "dB", "higher"),
    "ssim": Column("SSIM", "", "higher"),
    "mesh_psnr": Column("PSNR of the mesh", "dB", "higher"),
    "chamfer": Column("Chamfer", "", "lower"),
    "volume_iou": Column("Volume IoU", "", "higher"),
    "f_score": Column("F-score", "", "higher"),
}
UNITS = {
    "views": f"PSNR and SSIM of the refined views, resized to the true ones, over white; a view "
    f"counts as at most {MAX_PSNR:g} dB. Reconstructions from true views have none.",
    "mesh": "PSNR of the mesh is that of its renders at the true cameras. The true object's "
    "longest side is 1; Chamfer unsquared and halved, F-score at 0.05.",
    "normalization": "meshes are used as they are",
}
STRIP_VIEWS, STRIP_SIDE = 8, 128


def score_run(row: ScoreRow, truth: ObjectTruth, folder: Path, output: Path) -> ScoreRow:
    """The row of a finished run.

    Args:
        row: without scores.
        truth: of the object.
        folder: of the run.
        output: that paths in the row are relative to.
    """
    mesh = load_mesh(folder / "mesh.glb")
    rendered = render_views(surface_mesh_to_object(mesh), truth.views.cameras).views
    scores: dict[str, float | None] = {"psnr": None, "ssim": None}
    pictures = {
        "input": truth.given / "photo.png",
        "truth": truth.given / "truth-strip.png",
    }
    write_strip(pictures["truth"], truth.views.rgb)
    shown = rendered.rgb
    if (folder / "refined").is_dir():
        shown = at_size(Views.load(folder / "refined").rgb, truth.views.rgb)
        scores |= view_scores(shown, truth.views.rgb)
    pictures |= {"views": folder / "views-strip.png", "error": folder / "error-strip.png"}
    write_strip(pictures["views"], shown)
    write_strip(pictures["error"], 1 - (shown - truth.views.rgb).abs().clamp(0, 1))
    scores["mesh_psnr"] = view_scores(rendered.rgb, truth.views.rgb)["psnr"]
    found = score_mesh(mesh, truth.mesh)
    scores |= {"chamfer": found.chamfer_distance, "volume_iou": found.volume_iou}
    scores["f_score"] = found.f_score
    meshes = {"ours": folder / "mesh.glb", "truth": truth.given / "truth.glb"}
    steps = json.loads((folder / "report.json").read_text())["steps"]
    return replace(
        row,
        scores=scores,
        seconds={name: step["seconds"] for name, step in steps.items() if "seconds" in step},
        pictures={kind: path.relative_to(output).as_posix() for kind, path in pictures.items()},
        meshes={kind: path.relative_to(output).as_posix() for kind, path in meshes.items()},
    )


def view_scores(pred: Tensor, truth: Tensor) -> dict[str, float | None]:
    """Means over the views.

    Args:
        pred: [V, 3, H, W] in [0, 1].
        truth: [V, 3, H, W] in [0, 1].
    """
    of_views = ssim(pred, truth)
    return {
        "psnr": psnr(pred, truth).clamp(max=MAX_PSNR).mean().item(),
        "ssim": of_views[of_views.isfinite()].mean().item(),
    }


def at_size(rgb: Tensor, like: Tensor) -> Tensor:
    """Views resized to the size of others. [V, 3, H, W]"""
    if rgb.shape == like.shape:
        return rgb
    size = like.shape[-2:]
    return F.interpolate(rgb, size, mode="bicubic", antialias=True).clamp(0, 1)


def write_strip(path: Path, rgb: Tensor) -> None:
    """Write some of V views side by side, unless the file is there.

    Args:
        path: ends in `.png`.
        rgb: [V, 3, H, W] in [0, 1].
    """
    if path.is_file():
        return
    chosen = rgb[torch.arange(STRIP_VIEWS) * len(rgb) // STRIP_VIEWS]
    small = F.interpolate(chosen, (STRIP_SIDE, STRIP_SIDE), mode="bilinear", antialias=True)
    pixels = (torch.cat(list(small), dim=-1).clamp(0, 1) * 255).round().byte()
    with atomic_path(path) as partial:
        Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()).save(partial)
