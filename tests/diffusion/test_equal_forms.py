"""The UNet's faster forms give the numbers of diffusers' own."""

import copy

import pytest
import torch

from hi3d.diffusion.equal_forms import EQUAL_FORMS, WITH_GRADIENTS, use_equal_forms
from hi3d.diffusion.memory.modes import set_parts
from hi3d.diffusion.unet import UNetConfig, build_unet


@pytest.fixture(scope="module")
def unets():
    """A UNet with norms and mixes as if trained, and its copy in the other forms."""
    torch.manual_seed(0)
    unet = build_unet(UNetConfig([32, 64], 1, [2, 4], 16, 32), 8, 4).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return unet, use_equal_forms(copy.deepcopy(unet))


def inputs():
    generator = torch.Generator().manual_seed(1)
    shapes = {"sample": (2, 3, 8, 8, 8), "encoder_hidden_states": (2, 1, 16)}
    values = {name: torch.randn(s, generator=generator) for name, s in shapes.items()}
    return {**values, "timestep": torch.tensor([0.5, 1.5]), "added_time_ids": torch.ones(2, 2)}


def test_outputs_are_equal(unets):
    with torch.no_grad():
        stock, ours = (unet(**inputs()).sample for unet in unets)
        set_parts(unets[1], 4, 3)
        pieces = unets[1](**inputs()).sample
        set_parts(unets[1], 1, 3)
    scale = stock.abs().max()
    assert (ours - stock).abs().max() < 1e-5 * scale
    assert (pieces - stock).abs().max() < 1e-5 * scale
    with_gradients = unets[1](**inputs()).sample
    assert (with_gradients - stock).abs().max() < 1e-5 * scale


def test_all_forms_are_in_use_and_weights_keep_their_names(unets):
    stock, ours = unets
    assert set(EQUAL_FORMS.values()) <= {type(module) for module in ours.modules()}
    assert not set(EQUAL_FORMS) & {type(module) for module in ours.modules()}
    first, second = stock.state_dict(), ours.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_gradients_are_equal(unets):
    trained = use_equal_forms(copy.deepcopy(unets[0]), trained=True)
    assert {EQUAL_FORMS[kind] for kind in WITH_GRADIENTS} <= {type(m) for m in trained.modules()}
    gradients = []
    for unet in (unets[0], trained):
        unet.zero_grad()
        unet(**inputs()).sample.square().mean().backward()
        gradients.append({name: p.grad for name, p in unet.named_parameters()})
    assert all(gradient is not None for gradient in gradients[1].values())
    scale = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, expected in gradients[0].items():
        assert (gradients[1][name] - expected).abs().max() < 1e-5 * scale, name


def test_two_tokens_are_refused(unets):
    given = inputs() | {"encoder_hidden_states": torch.zeros(2, 2, 16)}
    with pytest.raises(ValueError, match="2 tokens"), torch.no_grad():
        unets[1](**given)
