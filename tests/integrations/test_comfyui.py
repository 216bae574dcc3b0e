"""The nodes, loaded and called as ComfyUI does, with stubs of what it gives."""

import importlib.util
import inspect
import sys
import types
from pathlib import Path

import pytest
import torch

from hi3d.assets.surface_mesh import load_mesh
from hi3d.errors import InputError
from tests.pipelines.tiny_settings import TINY

FOLDER = Path(__file__).parents[2] / "integrations/comfyui"
WIDGETS = {"INT", "STRING", "FLOAT", "BOOLEAN"}


@pytest.fixture(scope="module")
def nodes():
    """The module, as ComfyUI's `load_custom_node` makes it of a folder in custom_nodes/."""
    name = "custom_nodes.hi3d"
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture
def output(tmp_path, monkeypatch) -> Path:
    """ComfyUI's output folder, which its module `folder_paths` names."""
    stub = types.ModuleType("folder_paths")
    stub.get_output_directory = lambda: str(tmp_path)

    def save_path(prefix: str, root: str) -> tuple[str, str, int, str, str]:
        folder = Path(root) / Path(prefix).parent
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder), Path(prefix).name, 1, str(Path(prefix).parent), prefix

    stub.get_save_image_path = save_path
    monkeypatch.setitem(sys.modules, "folder_paths", stub)
    return tmp_path


@pytest.fixture(scope="module")
def photo() -> tuple[torch.Tensor, torch.Tensor]:
    """A red disc as Load Image gives it: IMAGE [1, H, W, 3] and MASK [1, H, W], 1 outside."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (y - 32) ** 2 + (x - 32) ** 2 < 400
    image = torch.where(disc[..., None], torch.tensor([0.8, 0.2, 0.1]), torch.tensor(0.5))
    return image[None], 1 - disc[None].float()


def call(node_class, **given):
    """As ComfyUI's executor: required inputs with their defaults, then the named function."""
    types_of = node_class.INPUT_TYPES()
    values = {
        name: entry[1]["default"]
        for name, entry in {**types_of["required"], **types_of.get("optional", {})}.items()
        if entry[0] in WIDGETS and "default" in entry[1]
    }
    return getattr(node_class(), node_class.FUNCTION)(**{**values, **given})


def test_the_interface_is_that_of_comfyui(nodes):
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node_class in nodes.NODE_CLASS_MAPPINGS.values():
        given = node_class.INPUT_TYPES()
        names = [*given["required"], *given.get("optional", {})]
        signature = inspect.signature(getattr(node_class, node_class.FUNCTION))
        assert sorted(names) == sorted(set(signature.parameters) - {"self"})
        assert len(node_class.RETURN_TYPES) == len(node_class.RETURN_NAMES)
        assert node_class.CATEGORY == "hi3d"
        assert node_class.__doc__
    assert len((FOLDER / "__init__.py").read_text().splitlines()) < 100


def test_a_photo_becomes_an_orbit_and_a_mesh(nodes, photo, output, tiny_models):
    folders = [f"stage1={tiny_models / 'stage1'}", f"stage2={tiny_models / 'stage2'}"]
    settings = "\n".join(["", *TINY, *folders])
    image, mask = photo
    views, images, masks = call(
        nodes.PhotoToOrbit, image=image, mask=mask, settings=settings, elevation_deg="10"
    )
    assert images.shape == (16, 16, 16, 3)
    assert masks.shape == (16, 16, 16)
    assert 0 <= images.min() < images.max() <= 1
    assert masks[0, 0, 0] == 1  # the corner is background, in ComfyUI's sense
    assert masks[0, 8, 8] < 0.5
    assert views.cameras.elevation_deg[0] == pytest.approx(10, abs=1e-3)
    made = call(nodes.OrbitToMesh, views=views, settings=settings)
    assert made["result"] == ("hi3d/mesh_00001_.glb",)
    assert load_mesh(output / made["result"][0]).texture is not None


def test_a_mask_of_zeros_is_none_and_errors_are_one_line(nodes, photo):
    image, _ = photo
    with pytest.raises(InputError, match="elevation_deg is high"):
        call(nodes.PhotoToOrbit, image=image, mask=torch.zeros(1, 64, 64), elevation_deg="high")
    with pytest.raises(InputError, match="stepz"):
        call(nodes.PhotoToOrbit, image=image, settings="mesh.neus.stepz=3")
