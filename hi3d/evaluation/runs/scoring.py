"""Scores of one object by the name of a protocol."""

from dataclasses import asdict

import torch
from torch.nn.functional import interpolate

from hi3d.config import check_choice
from hi3d.evaluation.mesh_metrics import score_mesh
from hi3d.evaluation.score_table import Column
from hi3d.evaluation.view_metrics import MAX_PSNR, psnr, ssim
from hi3d.mesh import SurfaceMesh

PROTOCOLS = {
    "surface": "16 views with view 0 over white, PSNR and SSIM per view, then their mean; points "
    "on both surfaces, distances unsquared and halved; volumes on a grid"
}
COLUMNS = {
    "psnr": Column("PSNR", "dB"),
    "ssim": Column("SSIM"),
    "chamfer_distance": Column("Chamfer distance", better="lower"),
    "volume_iou": Column("Volume IoU"),
    "f_score": Column("F-score"),
}


def check_protocol(name: str) -> None:
    """Raise where there is no protocol of this name."""
    check_choice("protocol", name, tuple(PROTOCOLS))


def score_object(
    protocol: str,
    rgb: torch.Tensor | None,  # [V, 3, H, W]
    truth_rgb: torch.Tensor,  # [V, 3, S, S]
    mesh: SurfaceMesh | None,
    truth_mesh: SurfaceMesh,
) -> dict[str, float | None]:
    """Scores by name of the column; None where there is nothing to score.

    Args:
        protocol: its name.
        rgb: views over white in [0, 1], brought to the truth's size by averaging.
        truth_rgb: views of the same cameras.
        mesh: in the coordinates of the truth.
        truth_mesh: centred, longest side 1.
    """
    scores: dict[str, float | None] = dict.fromkeys(COLUMNS)
    if rgb is not None:
        rgb = resized(rgb, truth_rgb.shape[-1])
        scores["psnr"] = psnr(rgb, truth_rgb).clamp_max(MAX_PSNR).mean().item()
        scores["ssim"] = ssim(rgb, truth_rgb).nanmean().item()
    if mesh is not None:
        scores |= asdict(score_mesh(mesh, truth_mesh))
    return scores


def resized(rgb: torch.Tensor, side: int) -> torch.Tensor:
    """Square views of another size: averaged down, or bicubic up. [V, 3, side, side]"""
    if rgb.shape[-1] == side:
        return rgb
    if rgb.shape[-1] > side:
        return interpolate(rgb, (side, side), mode="area")
    return interpolate(rgb, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)
