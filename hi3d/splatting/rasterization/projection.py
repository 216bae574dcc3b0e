"""From Gaussians in the world to ellipses on the image: the part before any pixel is touched."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hi3d.cameras import Cameras
from hi3d.splats import GaussianSplats

NEAR_PLANE = 0.01
DILATION = 0.3  # px^2 added to every 2D variance: no Gaussian is thinner than a pixel (3DGS)
MIN_ALPHA = 1 / 255  # contributions below are left out (3DGS)
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4  # a pixel is finished before it falls below this (3DGS)
LARGEST = 1e6  # Gaussians with a number beyond are left out
LARGEST_SCALE = 1e4  # its fourth power in pixels, near the camera, still fits float32
SMALLEST_QUAT = 1e-8  # a shorter quaternion has no direction


@dataclass(frozen=True)
class ProjectedSplats:
    """N Gaussians on the image planes of V cameras."""

    means2d: Tensor  # [V, N, 2]
    """Centers in pixels; pixel centers lie at +0.5."""
    conics: Tensor  # [V, N, 3]
    """Inverse of the 2D covariances in 1/px^2: xx, xy, yy."""
    depths: Tensor  # [V, N]
    """Along the camera's z axis."""
    opacities: Tensor  # [V, N]
    """In [0, 1]."""
    radii: Tensor  # [V, N, 2]
    """Half width and half height, in pixels, of the box that holds every pixel with alpha of at
    least 1/255; 0 where the Gaussian cannot be seen. Without gradient."""


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices of quaternions.

    Args:
        quats: [..., 4] wxyz, of any length but zero.

    Returns:
        [..., 3, 3]
    """
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def leave_out_unusable(splats: GaussianSplats) -> tuple[GaussianSplats, Tensor]:
    """Make Gaussians that cannot be drawn invisible, whatever a fit or a file may hold.

    Left out are those with a number that is NaN, infinite or beyond `LARGEST`, those larger than
    `LARGEST_SCALE`, and those with a quaternion of no length. They get no gradient.

    Args:
        splats: N Gaussians.

    Returns:
        N Gaussians that are safe to project, and whether each is usable [N] bool.
    """
    with torch.no_grad():
        length = splats.quats.norm(dim=-1)
        usable = (length > SMALLEST_QUAT) & (length < LARGEST)
        usable &= splats.logit_opacities.abs() < LARGEST
        usable &= (splats.log_scales.abs() < LARGEST).all(-1)
        usable &= (splats.log_scales < math.log(LARGEST_SCALE)).all(-1)
        usable &= (splats.means.abs() < LARGEST).all(-1)
        usable &= (splats.sh.abs() < LARGEST).flatten(1).all(-1)
    if bool(usable.all()):
        return splats, usable
    replacements = {
        "means": 0.0,
        "quats": 1.0,
        "log_scales": 0.0,
        "logit_opacities": -LARGEST,  # opacity 0
        "sh": 0.0,
    }
    safe = {}
    for name, tensor in splats.tensors().items():
        mask = usable.view(-1, *[1] * (tensor.ndim - 1))
        safe[name] = torch.where(mask, tensor, tensor.new_tensor(replacements[name]))
    return GaussianSplats(**safe), usable


def project_splats(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    cameras: Cameras,
) -> ProjectedSplats:
    """EWA projection: the 3D covariance through the local affine map of the camera.

    Differentiable in `means`, `quats`, `scales` and `opacities`. Gaussians nearer than
    `NEAR_PLANE`, outside the image or fainter than 1/255 get a radius of 0.

    Args:
        means: [N, 3] centers in the world.
        quats: [N, 4] rotations, wxyz.
        scales: [N, 3] standard deviations.
        opacities: [N] in [0, 1].
        cameras: V cameras.

    Source: Zwicker et al., "EWA Splatting"; Kerbl et al. [23], Section 4.
    """
    rotations, translations = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3]
    local = means @ rotations.transpose(1, 2) + translations[:, None]  # [V, N, 3]
    x, y, depths = local.unbind(-1)
    in_front = depths > NEAR_PLANE
    z = torch.where(in_front, depths, torch.ones_like(depths))
    fx, fy = cameras.Ks[:, 0, 0, None], cameras.Ks[:, 1, 1, None]
    cx, cy = cameras.Ks[:, 0, 2, None], cameras.Ks[:, 1, 2, None]
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)

    # Far outside the image the affine map is a bad one: it is taken at most 15 % of the image's
    # size beyond the border, as in 3DGS.
    margin_x, margin_y = 0.15 * cameras.width / fx, 0.15 * cameras.height / fy
    slope_x = (x / z).clamp(-cx / fx - margin_x, (cameras.width - cx) / fx + margin_x)
    slope_y = (y / z).clamp(-cy / fy - margin_y, (cameras.height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [fx / z, zero, -fx * slope_x / z, zero, fy / z, -fy * slope_y / z], dim=-1
    ).unflatten(-1, (2, 3))
    # Columns are the axes of the ellipse: covariance = axes axes^T.
    axes = jacobian @ rotations[:, None] @ (rotation_matrices(quats) * scales[:, None])
    first, second = axes.unbind(-2)  # [V, N, 3] each
    xx, yy = (first * first).sum(-1), (second * second).sum(-1)
    xy = (first * second).sum(-1)
    # det(axes axes^T) is the squared length of the cross product (Cauchy and Binet); the difference
    # xx yy - xy^2 would lose all digits for needles.
    normal = torch.linalg.cross(first, second)
    area = (normal * normal).sum(-1)
    determinant = area + DILATION * (xx + yy) + DILATION**2
    xx, yy = xx + DILATION, yy + DILATION
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[..., None]
    opacities = opacities.expand(len(cameras), -1)

    with torch.no_grad():
        # opacity * exp(-power) = 1/255 on an ellipse that spans sqrt(2 power variance).
        power = (opacities / MIN_ALPHA).clamp(min=1).log()
        radii = (2 * power[..., None] * torch.stack([xx, yy], dim=-1)).sqrt()
        size = means.new_tensor([cameras.width, cameras.height])
        on_image = ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
        seen = in_front & on_image & (power > 0)
        radii = torch.where(seen[..., None], radii, torch.zeros_like(radii))
    return ProjectedSplats(means2d, conics, depths, opacities, radii)


def evaluate_harmonics(sh: Tensor, directions: Tensor) -> Tensor:
    """Colors of spherical harmonics seen along `directions`, as 3DGS defines them.

    Args:
        sh: [N, K, 3], K = 1, 4, 9 or 16.
        directions: [..., N, 3], unit length, from the camera to the Gaussian.

    Returns:
        [..., N, 3]: 0.5 + the sum of the harmonics, not below 0.
    """
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, 0.5 / math.sqrt(math.pi))]
    if sh.shape[1] > 1:
        c = math.sqrt(3 / (4 * math.pi))
        basis += [-c * y, c * z, -c * x]
    if sh.shape[1] > 4:
        c = math.sqrt(15 / math.pi) / 2
        basis += [
            *(c * x * y, -c * y * z, c / math.sqrt(12) * (3 * z * z - 1)),
            *(-c * x * z, c / 2 * (x * x - y * y)),
        ]
    if sh.shape[1] > 9:
        c1, c2 = math.sqrt(35 / (32 * math.pi)), math.sqrt(105 / (4 * math.pi))
        c3, c4 = math.sqrt(21 / (32 * math.pi)), math.sqrt(7 / (16 * math.pi))
        basis += [
            *(-c1 * y * (3 * x * x - y * y), c2 * x * y * z, -c3 * y * (5 * z * z - 1)),
            *(c4 * z * (5 * z * z - 3), -c3 * x * (5 * z * z - 1)),
            *(c2 / 2 * z * (x * x - y * y), -c1 * x * (x * x - 3 * y * y)),
        ]
    return ((torch.stack(basis, dim=-1)[..., None] * sh).sum(-2) + 0.5).clamp(min=0)
