import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hi3d.errors import InputError
from hi3d.splats import GaussianSplats


def some_splats(num: int, num_harmonics: int) -> GaussianSplats:
    generator = torch.Generator().manual_seed(0)
    return GaussianSplats(
        means=torch.randn(num, 3, generator=generator),
        quats=torch.nn.functional.normalize(torch.randn(num, 4, generator=generator), dim=-1),
        log_scales=torch.randn(num, 3, generator=generator),
        logit_opacities=torch.randn(num, generator=generator),
        sh=torch.randn(num, num_harmonics, 3, generator=generator),
    )


@pytest.mark.parametrize("num_harmonics", [1, 4, 16])
def test_ply_round_trip(tmp_path: Path, num_harmonics: int) -> None:
    splats = some_splats(7, num_harmonics)
    splats.save_ply(tmp_path / "splats.ply")
    loaded = GaussianSplats.load_ply(tmp_path / "splats.ply")
    for name, tensor in splats.tensors().items():
        torch.testing.assert_close(getattr(loaded, name), tensor)
    assert loaded.sh_degree == round(math.sqrt(num_harmonics)) - 1


def test_ply_layout(tmp_path: Path) -> None:
    splats = some_splats(2, 4)
    splats.save_ply(tmp_path / "splats.ply")
    header, body = (tmp_path / "splats.ply").read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 2"]
    names = [line.removeprefix("property float ") for line in lines[3:]]
    assert names == [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(9)),
        *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
    ]
    row = np.frombuffer(body, "<f4").reshape(2, len(names))[1]
    column = dict(zip(names, row, strict=True))
    # f_rest is channel-major: the first three are red of harmonics 1 to 3, then green.
    assert column["f_rest_1"] == splats.sh[1, 2, 0].item()
    assert column["f_rest_3"] == splats.sh[1, 1, 1].item()
    assert column["rot_0"] == pytest.approx(splats.quats[1, 0].item())
    assert column["opacity"] == splats.logit_opacities[1].item()


def test_ply_of_another_program_and_bad_files(tmp_path: Path) -> None:
    splats = some_splats(3, 1)
    path = tmp_path / "splats.ply"
    splats.save_ply(path)
    content = path.read_bytes()
    header, body = content.split(b"end_header\n", 1)
    rows = np.frombuffer(body, "<f4").reshape(3, -1)
    extra = np.concatenate([rows, np.ones((3, 1), "<f4")], axis=1).tobytes()
    path.write_bytes(header + b"property float filter_3D\nend_header\n" + extra)
    torch.testing.assert_close(GaussianSplats.load_ply(path).means, splats.means)

    path.write_bytes(content[:-5])
    with pytest.raises(InputError, match="cut off"):
        GaussianSplats.load_ply(path)
    path.write_bytes(content.replace(b"opacity", b"density"))
    with pytest.raises(InputError, match="no property 'opacity'"):
        GaussianSplats.load_ply(path)
    path.write_bytes(content.replace(b"vertex 3", b"vertex many"))
    with pytest.raises(InputError, match="how many vertices"):
        GaussianSplats.load_ply(path)
    path.write_bytes(content.replace(b"float nx", b"float f_rest_0"))
    with pytest.raises(InputError, match="degree 3"):
        GaussianSplats.load_ply(path)
    path.write_bytes(b"solid cube")
    with pytest.raises(InputError, match="PLY"):
        GaussianSplats.load_ply(path)
    with pytest.raises(InputError, match="cannot read"):
        GaussianSplats.load_ply(tmp_path / "absent.ply")


def test_quaternions_are_stored_as_they_are(tmp_path):
    quats = torch.tensor([[2.0, 0.1, 0.3, -0.7]])
    splats = GaussianSplats(
        torch.zeros(1, 3), quats, torch.zeros(1, 3), torch.zeros(1), torch.zeros(1, 1, 3)
    )
    splats.save_ply(tmp_path / "one.ply")
    assert torch.equal(GaussianSplats.load_ply(tmp_path / "one.ply").quats, quats)
