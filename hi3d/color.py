"""The sRGB curve (IEC 61966-2-1), for arrays; tensors pass through `numpy()`."""

import numpy as np


def srgb_from_linear(rgba: np.ndarray) -> np.ndarray:
    """Encode linear light as sRGB (IEC 61966-2-1).

    Args:
        rgba: [..., 3 or 4] in [0, 1]; a fourth channel is alpha and stays.
    """
    encoded = np.array(rgba, np.float32)
    light = encoded[..., :3].clip(0, 1)
    curve = 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    encoded[..., :3] = np.where(light <= 0.0031308, 12.92 * light, curve)
    return encoded


def linear_from_srgb(rgba: np.ndarray) -> np.ndarray:
    """Decode sRGB to linear light (IEC 61966-2-1): the inverse of `srgb_from_linear`."""
    light = np.array(rgba, np.float32)
    encoded = light[..., :3].clip(0, 1)
    curve = ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4
    light[..., :3] = np.where(encoded <= 0.04045, encoded / 12.92, curve)
    return light
