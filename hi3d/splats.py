"""The Gaussians themselves (paper, Section 3) and their PLY file."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hi3d.errors import InputError
from hi3d.files import atomic_path, regular_file

MAX_SH_DEGREE = 3


@dataclass(frozen=True)
class GaussianSplats:
    """N Gaussians, with the parameters in the form in which they are optimized and stored."""

    means: Tensor  # [N, 3]
    """Centers in the world."""
    quats: Tensor  # [N, 4]
    """Rotations, wxyz, of any length but zero."""
    log_scales: Tensor  # [N, 3]
    """Natural logarithm of the standard deviations along the rotated axes."""
    logit_opacities: Tensor  # [N]
    """Opacity before the sigmoid."""
    sh: Tensor  # [N, K, 3]
    """Spherical harmonics of the color, K = (degree + 1)^2; see `evaluate_harmonics`."""

    def __post_init__(self) -> None:
        num = self.means.shape[0]
        expected = {"means": (3,), "quats": (4,), "log_scales": (3,), "logit_opacities": ()}
        for name, shape in expected.items():
            if getattr(self, name).shape != (num, *shape):
                raise ValueError(
                    f"{name} must be {[num, *shape]}, got {list(getattr(self, name).shape)}"
                )
        counts = [(degree + 1) ** 2 for degree in range(MAX_SH_DEGREE + 1)]
        if self.sh.ndim != 3 or self.sh.shape[::2] != (num, 3) or self.sh.shape[1] not in counts:
            raise ValueError(f"sh must be [{num}, 1|4|9|16, 3], got {list(self.sh.shape)}")

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return round(self.sh.shape[1] ** 0.5) - 1

    @property
    def scales(self) -> Tensor:
        """Standard deviations along the rotated axes. [N, 3]"""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Opacities in (0, 1). [N]"""
        return self.logit_opacities.sigmoid()

    def tensors(self) -> dict[str, Tensor]:
        """The five tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> "GaussianSplats":
        """The same Gaussians on `device`."""
        return GaussianSplats(**{name: t.to(device) for name, t in self.tensors().items()})

    def detach(self) -> "GaussianSplats":
        """The same Gaussians without gradients."""
        return GaussianSplats(**{name: t.detach() for name, t in self.tensors().items()})

    def save_ply(self, path: str | Path) -> None:
        """Write a binary PLY in the layout of 3DGS [23], which the common viewers open.

        One vertex per Gaussian: x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3, all
        float32 and little endian; `f_rest` holds all of red, then green, then blue; normals are 0.
        """
        num, num_rest = len(self), self.sh.shape[1] - 1
        names = _ply_names(num_rest)
        columns = [
            self.means,
            torch.zeros_like(self.means),
            self.sh[:, 0],
            self.sh[:, 1:].transpose(1, 2).reshape(num, 3 * num_rest),
            self.logit_opacities[:, None],
            self.log_scales,
            self.quats,  # of any length, as 3DGS writes them: a resumed run goes on with the same
        ]
        table = torch.cat([column.detach().float().cpu() for column in columns], dim=1)
        properties = "".join(f"property float {name}\n" for name in names)
        header = f"ply\nformat binary_little_endian 1.0\nelement vertex {num}\n{properties}"
        with atomic_path(path) as partial:
            partial.write_bytes(
                (header + "end_header\n").encode() + table.numpy().astype("<f4").tobytes()
            )

    @staticmethod
    def load_ply(path: str | Path) -> "GaussianSplats":
        """Read what `save_ply` or another 3DGS program wrote; further properties are ignored.

        Raises:
            InputError: the file is missing or is no PLY of Gaussians.
        """
        try:
            content = regular_file(path).read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot read splats {path} ({error.strerror}): check the path"
            ) from error
        values = _read_vertices(content, path)
        num_rest = sum(name.startswith("f_rest_") for name in values)
        allowed = [3 * ((degree + 1) ** 2 - 1) for degree in range(MAX_SH_DEGREE + 1)]
        if num_rest not in allowed:
            raise InputError(
                f"{path} has {num_rest} f_rest columns: only harmonics up to degree 3 are read "
                f"({', '.join(map(str, allowed))} columns)"
            )
        num_rest //= 3
        missing = [n for n in _ply_names(num_rest) if n not in values and n[0] != "n"]
        if missing:
            raise InputError(
                f"{path} has no property {missing[0]!r}: give a PLY of Gaussian splats"
            )

        def columns(*names: str) -> Tensor:
            return torch.from_numpy(np.stack([values[n] for n in names], 1).astype(np.float32))

        num = len(values["x"])
        dc = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
        sh = [dc]
        if num_rest:
            rest = columns(*(f"f_rest_{i}" for i in range(3 * num_rest)))
            sh.append(rest.reshape(num, 3, num_rest).transpose(1, 2))
        return GaussianSplats(
            means=columns("x", "y", "z"),
            quats=columns(*(f"rot_{i}" for i in range(4))),
            log_scales=columns(*(f"scale_{i}" for i in range(3))),
            logit_opacities=columns("opacity")[:, 0],
            sh=torch.cat(sh, dim=1),
        )


def _ply_names(num_rest: int) -> list[str]:
    """Property names in the order of 3DGS, for K = num_rest + 1 harmonics."""
    return [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(3 * num_rest)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]


def _read_vertices(content: bytes, path: str | Path) -> dict[str, np.ndarray]:
    """The columns of the first element of a binary little-endian PLY."""
    dtypes = {"float": "<f4", "float32": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4"}
    header, mark, body = content.partition(b"end_header\n")
    lines = header.decode("ascii", errors="replace").split("\n")
    if not mark or lines[0] != "ply" or "format binary_little_endian 1.0" not in lines:
        raise InputError(f"{path} is no binary little-endian PLY: convert it or give another file")
    elements = [i for i, line in enumerate(lines) if line.startswith("element ")]
    if not elements or not lines[elements[0]].startswith("element vertex "):
        raise InputError(f"{path} does not begin with vertices: give a PLY of Gaussian splats")
    words = lines[elements[0]].split()
    if len(words) != 3 or not words[2].isdigit():
        raise InputError(f"{path} does not say how many vertices it has: make the file again")
    count = int(words[2])
    end = elements[1] if len(elements) > 1 else len(lines)
    properties = [line.split() for line in lines[elements[0] : end] if line.startswith("property ")]
    unknown = [words[1] for words in properties if words[1] not in dtypes]
    if unknown:
        raise InputError(f"{path} has a property of type {unknown[0]!r}: only numbers are read")
    dtype = np.dtype([(words[2], dtypes[words[1]]) for words in properties])
    if len(body) < count * dtype.itemsize:
        raise InputError(f"{path} is cut off: make or download the file again")
    table = np.frombuffer(body, dtype=dtype, count=count)
    return {name: table[name] for name in dtype.names or ()}
