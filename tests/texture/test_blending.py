import math

import pytest
import torch

from hi3d.cameras import Cameras, cameras_at
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh
from hi3d.progress import console
from hi3d.texture.atlas import nearest_texels, sample_texture, surface_texels
from hi3d.texture.bake import TextureConfig, bake_texture
from hi3d.texture.blending import WeightedMean, sighting_weight
from hi3d.texture.optimization import optimize_texels, subpixels
from hi3d.texture.visibility import Sighting
from hi3d.views import Views

WAVES = 60.0  # radians per world unit: a period of 0.105, some 10 pixels of the views below


def sighting(texels: list[int], cos: list[float], density: list[float]) -> Sighting:
    """A view that sees these texels all in its middle, with full trust."""
    return Sighting(
        torch.tensor(texels, dtype=torch.int32),
        torch.zeros(len(texels), 2),
        torch.tensor(cos),
        torch.tensor(density),
        torch.ones(len(texels)),
    )


def plain(value: float) -> torch.Tensor:
    return torch.full((3, 2, 2), value)


def test_weights_grow_with_angle_and_nearness():
    seen = sighting([0, 1], [0.5, 1.0], [1.0, 3.0])
    assert sighting_weight(seen, angle_power=2.0, distance_power=1.0).tolist() == [0.25, 3.0]


def test_mean_of_two_views():
    first, second = sighting([0, 2], [1, 1], [1, 1]), sighting([2, 3], [1, 1], [1, 1])
    mean = WeightedMean(4)
    mean.add(first, torch.tensor([1.0, 3.0]), plain(0.2))
    mean.add(second, torch.tensor([1.0, 0.5]), plain(0.6))
    assert mean.colors()[:, 0].tolist() == pytest.approx([0.2, 0, 0.3, 0.6])  # (3*.2 + .6) / 4


def striped_plate(cameras: Cameras, shifts: list[float]) -> tuple[SurfaceMesh, Views]:
    """A plate in the plane x = 0 with stripes, which each view sees moved by its own shift."""
    corners = torch.tensor([[0.0, -0.4, -0.4], [0, 0.4, -0.4], [0, 0.4, 0.4], [0, -0.4, 0.4]])
    mesh = SurfaceMesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.zeros(4, 3))
    rgb, alpha = [], []
    side = 4
    for view, shift in enumerate(shifts):
        fine = cameras.resized(cameras.width * side, cameras.height * side)
        origins, directions = fine.rays(view)
        points = origins - origins[..., :1] / directions[..., :1] * directions
        hit = (points.abs() < 0.4).all(-1)
        grey = 0.5 + 0.3 * torch.sin(WAVES * points[..., 1] + shift)
        image = torch.stack([torch.where(hit, grey, 1.0)] * 3 + [hit.float()])
        image = torch.nn.functional.avg_pool2d(image, side)
        rgb.append(image[:3])
        alpha.append(image[3:])
    return mesh, Views(torch.stack(rgb), torch.stack(alpha), cameras)


def contrast(mesh: SurfaceMesh, views: Views, photo: Views | None = None, **options) -> float:
    """Amplitude of the baked stripes over the middle of the plate, whatever their phase."""
    out = bake_texture(mesh, views, TextureConfig(resolution=256, **options), photo)
    y = torch.linspace(-0.3, 0.3, 400)
    uv_of_corner = torch.zeros(4, 2)
    for corner, uv in zip(out.faces.reshape(-1), out.uvs[out.faces.reshape(-1)], strict=True):
        which = (mesh.vertices - out.vertices[corner]).norm(dim=-1).argmin()
        uv_of_corner[which] = uv
    along = (y[:, None] + 0.4) / 0.8
    middle = (uv_of_corner[0] + uv_of_corner[3]) / 2
    opposite = (uv_of_corner[1] + uv_of_corner[2]) / 2
    grey = sample_texture(out.texture, middle + along * (opposite - middle))[:, 0]
    return grey.std().item() * 2**0.5


@pytest.fixture(scope="module")
def two_cameras() -> Cameras:
    return cameras_at(torch.tensor([10.0, -15.0]), torch.tensor([0.0, 0.0]), 128)


def test_the_mean_of_disagreeing_views_loses_their_detail(two_cameras):
    mesh, views = striped_plate(two_cameras, [0.0, torch.pi])
    assert contrast(mesh, views[0], optimization_steps=0) > 0.22
    # The shifts cancel but for the more frontal view's larger weight.
    assert contrast(mesh, views, optimization_steps=0) < 0.12


@pytest.mark.parametrize("steps", [0, 6])
def test_a_photo_of_more_pixels_gives_its_detail(two_cameras, steps):
    mesh, fine = striped_plate(two_cameras, [0.0, torch.pi])
    coarse = fine.shrunk(24)
    blurred = contrast(mesh, coarse, optimization_steps=steps)
    kept = contrast(mesh, coarse, optimization_steps=steps, photo=fine[0])
    assert blurred < 0.1
    assert kept > 0.13


def test_optimization_restores_the_contrast_that_pixels_blur(two_cameras):
    mesh, views = striped_plate(two_cameras.resized(64, 64), [0.0, 0.0])
    # 5 pixels a period: the mean over a pixel keeps sin(pi / 5) / (pi / 5) = 0.94 of it, bilinear
    # interpolation at most as much again.
    blurred = contrast(mesh, views, optimization_steps=0)
    restored = contrast(mesh, views, optimization_steps=6)
    assert blurred < 0.275
    assert abs(restored - 0.3) < 0.4 * abs(blurred - 0.3)


@pytest.mark.parametrize(("targets", "steps"), [([], 3), ([], 0), ([None], 0)])
def test_nothing_to_optimize_leaves_the_texels_and_shows_no_bar(targets, steps):
    rgb = torch.rand(5, 3)
    with console.capture() as shown:
        unchanged = optimize_texels(rgb, torch.ones(5), torch.zeros(2, 2).int(), targets, steps)
    assert torch.equal(unchanged, rgb)
    assert shown.get() == ""


def test_pixels_of_many_texels_take_more_rays():
    cameras = cameras_at(torch.tensor([0.0]), torch.tensor([0.0]), 350, distance=1.5)
    pixel = 1.5 / (350 * 35 / 32)  # focal length of the lens: 35 / 32 of the image's side
    assert subpixels(cameras, pixel) == 1
    assert subpixels(cameras, pixel / 4) == 2
    assert subpixels(cameras, pixel / 100) == 3


def test_gaps_show_the_nearest_texel():
    index = torch.tensor([0, 15])  # opposite corners of 4 x 4
    assert nearest_texels(index, 4)[[0, 1, 3, 2], [1, 0, 2, 3]].tolist() == [0, 0, 1, 1]


def test_texels_of_an_atlas_larger_than_a_block_of_rays():
    # One square that fills the atlas, and a face too small for any texel's centre.
    uvs = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [0.5, 1], [0.5, 1], [0.5, 1]])
    vertices = torch.cat([uvs, torch.zeros(7, 1)], dim=1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6]])
    normals = torch.tensor([[0.0, 0, 1]]).expand(7, 3)
    texels = surface_texels(vertices, faces, uvs, normals, 1100)
    assert torch.equal(texels.index, torch.arange(1100**2))
    row, column = texels.index // 1100, texels.index % 1100
    expected = torch.stack([(column + 0.5) / 1100, 1 - (row + 0.5) / 1100], dim=1)
    assert torch.allclose(texels.positions[:, :2], expected, atol=1e-5)
    assert texels.face_normals.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("key", "value", "span"),
    [
        ("resolution", 10_000, "from 1 to 8192"),
        ("resolution", 0, "from 1 to 8192"),
        ("optimization_steps", -1, "from 0 to"),
        ("optimization_steps", math.nan, "from 0 to"),
    ],
)
def test_settings_out_of_their_range_are_one_line(key, value, span):
    with pytest.raises(InputError, match=rf"^texture\.{key} is {value}: give a number {span}"):
        TextureConfig(**{key: value})
