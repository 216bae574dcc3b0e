from pathlib import Path

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from hi3d.errors import InputError
from hi3d.images.lpips import ARCHITECTURES, Lpips, LpipsConfig, LpipsNetwork, feature_layers


@pytest.mark.parametrize("network", LpipsNetwork)
def test_equals_torchmetrics_with_the_same_backbone(
    network, random_lpips_backbone, tmp_path, monkeypatch
):
    layers = random_lpips_backbone(network, tmp_path / "backbone.pth")
    # torchmetrics takes its layers from torchvision: it gets these instead.
    monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", lambda *_: layers)
    theirs = torchmetrics_lpips._LPIPS(net=network.value, eval_mode=True)
    ours = Lpips(LpipsConfig(network, str(tmp_path / "backbone.pth")))
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 70, 67, generator=generator)
    noisy = (target + 0.2 * torch.randn(target.shape, generator=generator)).requires_grad_()
    distance = ours(noisy, target)
    expected = theirs(noisy, target, normalize=True).reshape(-1)
    assert expected.min() > 0.01
    torch.testing.assert_close(distance, expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(d.sum(), noisy)[0] for d in (distance, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert ours(target, target).abs().max() == 0
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_layers_are_those_of_the_published_files():
    # The shapes of torchvision's VGG-16 and AlexNet: what is compared follows a ReLU.
    for network, num_parameters in ((LpipsNetwork.vgg, 14_714_688), (LpipsNetwork.alex, 2_469_696)):
        layers, architecture = feature_layers(network), ARCHITECTURES[network]
        assert sum(p.numel() for p in layers.parameters()) == num_parameters
        assert all(isinstance(layers[tap], nn.ReLU) for tap in architecture.taps)
        x = torch.zeros(1, 3, architecture.min_size, architecture.min_size)
        assert min(layers(x).shape[-2:]) >= 1


def test_bad_backbones_and_sizes_are_one_line(random_lpips_backbone, tmp_path):
    def load(path: Path) -> Lpips:
        return Lpips(LpipsConfig(LpipsNetwork.alex, str(path)))

    with pytest.raises(InputError, match=r"nothing\.pth: No such file.*alexnet-owt"):
        load(tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("no weights")
    random_lpips_backbone(LpipsNetwork.vgg, tmp_path / "vgg.pth")
    for name in ("text.pth", "vgg.pth"):
        with pytest.raises(InputError, match=f"{name} is not the expected network"):
            load(tmp_path / name)
    random_lpips_backbone(LpipsNetwork.alex, tmp_path / "alex.pth")
    small = torch.zeros(1, 3, 64, 30)
    with pytest.raises(InputError, match="30 x 64 images: at least 31"):
        load(tmp_path / "alex.pth")(small, small)


def test_without_a_connection_the_message_names_the_file(monkeypatch):
    from urllib.error import URLError

    def no_connection(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("hi3d.images.lpips.packaged_file", lambda _: None)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_connection)
    monkeypatch.setattr("hi3d.images.lpips.packaged_file", lambda _: None)
    with pytest.raises(InputError, match=r"vgg16-397923af.pth: no route to host.*as backbone"):
        Lpips()
