"""Scores of one object by the name of a protocol, and the columns that they fill."""

from torch import Tensor
from torch.nn.functional import interpolate

from hi3d.evaluation.protocols.protocol import THRESHOLDS, find_protocol, score_object
from hi3d.evaluation.score_table import Column
from hi3d.images.lpips import lpips_of
from hi3d.mesh import SurfaceMesh

COLUMNS = {
    "psnr": Column("PSNR", "dB"),
    "ssim": Column("SSIM"),
    "lpips": Column("LPIPS", better="lower"),
    "chamfer": Column("Chamfer distance", better="lower"),
    **{f"f_score_{threshold:g}": Column(f"F-score {threshold:g}") for threshold in THRESHOLDS},
    "normal_consistency": Column("Normal consistency"),
    "iou64": Column("Volume IoU 64³"),
    "iou128": Column("Volume IoU 128³"),
}


def scores_of(
    protocol: str,
    rgb: Tensor | None,  # [V, 3, H, W]
    truth_rgb: Tensor,  # [V, 3, S, S]
    mesh: SurfaceMesh | None,
    truth_mesh: SurfaceMesh | None,
) -> tuple[dict[str, float | None], list[str]]:
    """Scores by name of the column, None where there is nothing to score, and what was unusual.

    Args:
        protocol: its name.
        rgb: views over white in [0, 1], of any size.
        truth_rgb: views of the same cameras.
        mesh: in the coordinates of the truth.
        truth_mesh: centred, longest side 1; None leaves meshes out.
    """
    found = find_protocol(protocol)
    lpips = lpips_of(found.lpips_network)
    return score_object(found, rgb, truth_rgb, mesh, truth_mesh, lpips)


def resized(rgb: Tensor, side: int) -> Tensor:
    """Square views of another size, to be shown: averaged down, or bicubic up. [V, 3, S, S]"""
    if rgb.shape[-1] == side:
        return rgb
    if rgb.shape[-1] > side:
        return interpolate(rgb, (side, side), mode="area")
    return interpolate(rgb, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)
