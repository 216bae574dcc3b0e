"""The PSNR of seeds to each other, by hand."""

import torch

from hi3d.pipelines.many.diversity import diversity


def test_front_and_behind():
    rgb = torch.zeros(2, 4, 3, 2, 2)
    rgb[1, 1] = 0.1  # at 89 degrees: 20 dB, over front views 0 and 89 half the error
    rgb[1, 2] = 1.0
    found = diversity(rgb, torch.tensor([0.0, 89.0, 180.0, -90.0]))
    assert found["by_azimuth_db"] == {"0": None, "89": 20.0, "180": 0.0, "270": None}
    assert (found["front_db"], found["behind_db"]) == (23.01, 3.01)
