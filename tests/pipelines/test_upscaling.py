"""What stands in for stage 2: sizes, cameras, and a network that is fed what it should be."""

import sys
import types

import numpy as np
import pytest
import torch

from hi3d.cameras import orbit_cameras
from hi3d.errors import InputError
from hi3d.pipelines import upscaling
from hi3d.pipelines.upscaling import real_esrgan, upscaled
from hi3d.views import Views


@pytest.fixture
def views() -> Views:
    rgb = torch.linspace(0.1, 0.9, 8).expand(2, 3, 8, 8).contiguous()
    return Views(rgb, torch.ones(2, 1, 8, 8), orbit_cameras(20.0, 8, 2))


def test_bicubic_doubles_and_keeps_a_ramp(views):
    larger = upscaled(views, "bicubic")
    assert larger.rgb.shape == (2, 3, 16, 16)
    assert (larger.cameras.width, larger.cameras.height) == (16, 16)
    assert torch.allclose(larger.rgb.mean(), views.rgb.mean(), atol=1e-3)
    assert torch.allclose(larger.cameras.Ks[:, 0, 0], 2 * views.cameras.Ks[:, 0, 0])


def test_none_is_stage_1s_orbit(views):
    assert torch.equal(upscaled(views, "none").rgb, views.rgb)


class Net:
    """Repeats every pixel four times, from the memory that its input points to."""

    def __init__(self):
        self.opt = types.SimpleNamespace()

    def load_param(self, path):
        return 0

    load_model = load_param

    def create_extractor(self):
        return self

    def input(self, name, mat):
        self.mat = mat

    def extract(self, name):
        return 0, self.mat.repeat(4, axis=1).repeat(4, axis=2)


def test_real_esrgan_enlarges_by_four_and_is_halved(views, monkeypatch, tmp_path):
    fake = types.SimpleNamespace(Net=Net, Mat=lambda array: array)
    monkeypatch.setitem(sys.modules, "ncnn", fake)
    monkeypatch.setattr(real_esrgan, "weights_folder", lambda: tmp_path)
    larger = upscaled(views, "real-esrgan").rgb
    np.testing.assert_allclose(larger, views.rgb.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_without_the_packages_one_line_says_what_to_install(views, monkeypatch):
    monkeypatch.setattr(real_esrgan, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"hi3d\[realesrgan\]"):
        upscaled(views, "real-esrgan")
    assert set(upscaling.UPSCALERS) == {"none", "bicubic", "real-esrgan"}
