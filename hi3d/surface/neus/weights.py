"""The unbiased, occlusion-aware weights of NeuS (arXiv 2106.10689, Section 3.1).

With the logistic CDF `Phi_s(x) = 1 / (1 + exp(-s x))` and `s = inv_s`, the opaque density is
`rho = max(-dPhi_s(f)/dt / Phi_s(f), 0)` (Eq. 10). Integrated over the section between two samples
it gives the discrete opacity (Eq. 13), and the color is accumulated with `w_i = T_i alpha_i`
(Eq. 11 and 12).
"""

import torch
from torch import Tensor

CDF_EPS = 1e-5
"""Keeps Eq. 13 finite deep inside, where both CDFs vanish and the section must be opaque."""
MAX_ALPHA = 0.9999
"""A section never blocks all light, so that gradients reach the samples behind it."""


def alphas_from_sdf(
    sdf_starts: Tensor,  # [..., S]
    sdf_ends: Tensor,  # [..., S]
    inv_s: Tensor | float,
) -> Tensor:
    """Opacity of ray sections from the SDF at both ends (Eq. 13).

    `alpha_i = max((Phi_s(f_i) - Phi_s(f_{i+1})) / Phi_s(f_i), 0)`

    Args:
        sdf_starts: [..., S] SDF at `t_starts`, in world units.
        sdf_ends: [..., S] SDF at `t_ends`.
        inv_s: sharpness s of the logistic CDF, per world unit.

    Returns:
        alphas [..., S] in [0, 1).
    """
    cdf_starts = torch.sigmoid(sdf_starts * inv_s)
    cdf_ends = torch.sigmoid(sdf_ends * inv_s)
    alphas = (cdf_starts - cdf_ends + CDF_EPS) / (cdf_starts + CDF_EPS)
    return alphas.clamp(0, MAX_ALPHA)


def alphas_from_slopes(
    sdf: Tensor,  # [..., S]
    cos: Tensor,  # [..., S]
    t_starts: Tensor,  # [..., S]
    t_ends: Tensor,  # [..., S]
    inv_s: Tensor | float,
    cos_anneal_ratio: float = 1.0,
) -> Tensor:
    """Opacity of ray sections from the SDF in their middle and its slope along the ray (Eq. 13).

    The SDF at both ends is extrapolated with the slope `cos = <direction, gradient>`. Early in
    training the slope is blended with a softer one, which never vanishes where the surface faces
    away from the ray: `cos_anneal_ratio` rises from 0 to 1 (the authors' training schedule).

    Args:
        sdf: [..., S] SDF at the middle of each section, in world units.
        cos: [..., S] derivative of the SDF along the ray, negative where the ray enters.
        t_starts: [..., S] start of each section along the ray.
        t_ends: [..., S] its end.
        inv_s: sharpness s of the logistic CDF, per world unit.
        cos_anneal_ratio: 0 = soft slope, 1 = the true slope.

    Returns:
        alphas [..., S] in [0, 1).
    """
    soft = -torch.relu(0.5 - 0.5 * cos)
    true = -torch.relu(-cos)
    slope = torch.lerp(soft, true, cos_anneal_ratio)
    half = 0.5 * (t_ends - t_starts) * slope
    return alphas_from_sdf(sdf - half, sdf + half, inv_s)


def weights_from_alphas(alphas: Tensor) -> Tensor:
    """Rendering weights `w_i = T_i alpha_i`, `T_i = prod_{j<i} (1 - alpha_j)` (Eq. 11 and 12).

    Args:
        alphas: [..., S] opacities in [0, 1), in the order in which the ray meets them.

    Returns:
        weights [..., S]; their sum is the ray's opacity.
    """
    return alphas * transmittance(alphas)


def transmittance(alphas: Tensor) -> Tensor:
    """Share of light that reaches each section: `T_i = prod_{j<i} (1 - alpha_j)`. [..., S]"""
    through = torch.cumprod(1 - alphas, dim=-1)
    return torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)
