"""Untrained networks of the small model that tests begin with."""

from pathlib import Path

import torch

from hi3d.diffusion.weights import write_model_index
from hi3d.nano.grid.predictor import GridPredictor


def predictor_folder(folder: Path) -> Path:
    """A model folder with a grid predictor that has image features, of photos of 16 pixels."""
    torch.manual_seed(0)
    network = GridPredictor(16, 8, (8, 8, 32), 1, with_image_features=True)
    network.save_pretrained(folder / "grid_predictor")
    write_model_index(folder, {"grid_predictor": network})
    return folder
