import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from hi3d.cameras import Cameras, orbit_cameras, pinhole_intrinsics
from hi3d.splats import GaussianSplats
from hi3d.splatting.rasterization.native import (
    TILE_SIZE,
    composite,
    raster_kernel,
    tile_lists,
)
from hi3d.splatting.rasterization.native_projection import project_native
from hi3d.splatting.rasterization.projection import evaluate_harmonics, project_splats
from hi3d.splatting.rasterization.render import RenderedSplats, rasterize
from hi3d.splatting.rasterization.tiles import bin_into_tiles
from hi3d.splatting.rasterization.torch_reference import rasterize_reference

needs_native = pytest.mark.skipif(
    raster_kernel() is None, reason="the C rasteriser does not compile here"
)
Record = TypeVar("Record", GaussianSplats, Cameras, RenderedSplats)
SH_0 = 0.5 / math.sqrt(math.pi)


def front_camera(size: int, focal: float) -> Cameras:
    """At the origin, looking along +z."""
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return Cameras(torch.eye(4)[None], K[None], size, size)


def round_splats(
    means: list[list[float]], scale: float, opacities: list[float], colors: list[list[float]]
) -> GaussianSplats:
    num = len(means)
    return GaussianSplats(
        means=torch.tensor(means),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(num, 1),
        log_scales=torch.full((num, 3), math.log(scale)),
        logit_opacities=torch.logit(torch.tensor(opacities)),
        sh=((torch.tensor(colors) - 0.5) / SH_0)[:, None],
    )


def random_splats(num: int, scale: float, seed: int, sh_degree: int = 2) -> GaussianSplats:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return GaussianSplats(
        means=0.3 * normal(num, 3),
        quats=normal(num, 4),
        log_scales=math.log(scale) + 0.7 * normal(num, 3),
        logit_opacities=2 * normal(num),
        sh=0.3 * normal(num, (sh_degree + 1) ** 2, 3),
    )


def with_gradients(splats: GaussianSplats) -> GaussianSplats:
    return GaussianSplats(**{n: t.clone().requires_grad_() for n, t in splats.tensors().items()})


def cast(record: Record, dtype: torch.dtype) -> Record:
    """A dataclass with its floating-point tensors of another type."""
    tensors = {n: v.to(dtype) for n, v in vars(record).items() if isinstance(v, Tensor)}
    return replace(record, **tensors)


def random_loss(rendered: RenderedSplats) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    images = (rendered.rgb, rendered.alpha, rendered.depth)
    return sum((i * torch.randn(i.shape, generator=generator)).sum() for i in images)


def test_one_gaussian_is_the_closed_form() -> None:
    # Focal 40, depth 2, scale 0.1: a round 2D Gaussian of variance (0.1 * 40 / 2)^2 + 0.3 = 4.3.
    camera = front_camera(20, focal=40.0)
    splats = round_splats([[0.1, -0.05, 2.0]], 0.1, [0.8], [[0.9, 0.2, 0.4]])
    rendered = rasterize(splats, camera, background=0.0, backend="torch")
    y, x = torch.meshgrid(torch.arange(20) + 0.5, torch.arange(20) + 0.5, indexing="ij")
    centre_x, centre_y = 10 + 40 * 0.05, 10 - 40 * 0.025
    # Off the axis the affine map shears the depth extent in: J Sigma J^T with slopes .05, -.025.
    covariance = 4 * torch.tensor([[1 + 0.05**2, -0.05 * 0.025], [-0.05 * 0.025, 1 + 0.025**2]])
    conic = torch.linalg.inv(covariance + 0.3 * torch.eye(2))
    offset = torch.stack([x - centre_x, y - centre_y], dim=-1)
    power = 0.5 * torch.einsum("hwi,ij,hwj->hw", offset, conic, offset)
    alpha = 0.8 * torch.exp(-power)
    alpha[alpha < 1 / 255] = 0
    torch.testing.assert_close(rendered.alpha[0, 0], alpha, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(rendered.rgb[0, 1], 0.2 * alpha, rtol=1e-4, atol=1e-6)
    assert rendered.depth[0, 0][alpha > 0].sub(2).abs().max() < 1e-5
    assert (rendered.depth[0, 0][alpha == 0] == 0).all()


@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_two_gaussians_by_hand(backend: str) -> None:
    # Both centres project onto the pixel centre (8.5, 8.5), so sigma is the opacity there. The red
    # one, given second, lies in front: red 0.6, then green 0.4 * 0.5 = 0.2, and 0.2 of white.
    camera = front_camera(16, focal=32.0)
    means = [[0.5 / 32 * 3, 0.5 / 32 * 3, 3.0], [0.5 / 32 * 2, 0.5 / 32 * 2, 2.0]]
    splats = round_splats(means, 0.05, [0.5, 0.6], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    rendered = rasterize(splats, camera, background=1.0, backend=backend)
    torch.testing.assert_close(rendered.rgb[0, :, 8, 8], torch.tensor([0.8, 0.4, 0.2]))
    assert rendered.alpha[0, 0, 8, 8].item() == pytest.approx(0.8, abs=1e-6)
    # Depth: (0.6 * 2 + 0.2 * 3) / 0.8.
    assert rendered.depth[0, 0, 8, 8].item() == pytest.approx(2.25, abs=1e-5)


SCENES: dict[str, Callable[[], tuple[GaussianSplats, Cameras]]] = {
    "many small": lambda: (random_splats(800, 0.02, seed=0), orbit_cameras(20, 40, 2)),
    "image not a multiple of the tile": lambda: (
        random_splats(60, 0.1, seed=1),
        Cameras(orbit_cameras(20, 40, 2).viewmats, orbit_cameras(20, 40, 2).Ks, 37, 21),
    ),
    "huge": lambda: (random_splats(50, 0.8, seed=2), orbit_cameras(20, 33, 2)),
    "tiny": lambda: (random_splats(300, 1e-5, seed=3), orbit_cameras(20, 33, 2)),
    # A camera inside the cloud: many Gaussians lie behind it or next to its plane.
    "behind the camera": lambda: (
        random_splats(200, 0.05, seed=4),
        orbit_cameras(20, 33, 2, distance=0.2),
    ),
    # Forty layers of opacity 0.9999: capped at 0.999, and finished after two.
    "saturated": lambda: (
        round_splats(
            [[0.01 * math.sin(i), 0.01 * math.cos(i), 1 + 0.01 * i] for i in range(40)],
            0.2,
            [0.9999] * 40,
            [[i / 40, 0.5, 1 - i / 40] for i in range(40)],
        ),
        front_camera(24, focal=24.0),
    ),
    # Single needles, as long as the object and 1/1000 as thick, across many tiles.
    "needles": lambda: (
        replace(
            random_splats(40, 0.02, seed=9),
            log_scales=torch.tensor([0.5, 5e-4, 5e-4]).log().repeat(40, 1),
        ),
        orbit_cameras(20, 50, 2),
    ),
    "enormous": lambda: (
        replace(random_splats(6, 1.0, seed=10), log_scales=torch.full((6, 3), math.log(5e3))),
        orbit_cameras(20, 33, 1),
    ),
    # Every opacity just above and just below the limit of 1/255.
    "on the limit of visibility": lambda: (
        round_splats(
            [[0.02 * i, 0.0, 1.0] for i in range(-10, 10)],
            0.05,
            [1 / 255 + 1e-4 * i for i in range(-10, 9)] + [0.5],
            [[0.5, 0.05 * i, 0.2] for i in range(20)],
        ),
        front_camera(40, focal=40.0),
    ),
    # Centres exactly on the corners of the 16-pixel tiles.
    "tile borders": lambda: (
        round_splats(
            [[i / 2 - 1.0, j / 2 - 1.0, 1.0 + 0.01 * i] for i in range(5) for j in range(5)],
            0.03,
            [0.7] * 25,
            [[0.1 * i, 0.2, 0.1 * j] for i in range(5) for j in range(5)],
        ),
        front_camera(64, focal=32.0),
    ),
}


@needs_native
@pytest.mark.parametrize("scene", SCENES)
def test_native_equals_reference(scene: str) -> None:
    splats, cameras = SCENES[scene]()
    results = []
    # The oracle in float64: float32 alone is off by as much as the tolerance on needles.
    for backend, dtype in (("torch", torch.float64), ("native", torch.float32)):
        leaves = with_gradients(cast(splats, dtype))
        rendered = rasterize(leaves, cast(cameras, dtype), background=0.3, backend=backend)
        random_loss(rendered).backward()
        results.append((cast(rendered, torch.float32), leaves))
    (expected, expected_leaves), (actual, actual_leaves) = results
    for name in ("rgb", "alpha", "depth"):
        torch.testing.assert_close(
            getattr(actual, name), getattr(expected, name), rtol=1e-4, atol=2e-5
        )
    assert expected.alpha.max() > 0.3  # the scene is in the picture
    assert all(torch.isfinite(leaf.grad).all() for leaf in actual_leaves.tensors().values())
    for name, leaf in expected_leaves.tensors().items():
        difference = (leaf.grad - getattr(actual_leaves, name).grad).norm()
        assert difference <= 1e-4 * leaf.grad.norm() + 5e-6, name


@needs_native
@pytest.mark.parametrize("seed", range(8))
def test_tiles_of_ellipses_are_enough(seed: int) -> None:
    # Long and askew: the boxes reach many more tiles than the ellipses do.
    stretch = 1.5 * torch.randn(200, 3, generator=torch.Generator().manual_seed(seed))
    splats = random_splats(200, 0.02, seed)
    splats = replace(splats, log_scales=splats.log_scales + stretch)
    cameras = orbit_cameras(20, 97, 1)
    one = project_native(splats.means, splats.quats, splats.scales, splats.opacities, cameras)
    means2d, conics, depths = one.means2d[0], one.conics[0], one.depths[0]
    opacities, radii, size = one.opacities[0], one.radii[0], (cameras.width, cameras.height)
    features = torch.cat([splats.sh[:, 0], depths[:, None]], dim=1)
    boxes = bin_into_tiles(means2d, radii, depths, *size, TILE_SIZE)
    ellipses = tile_lists(means2d, conics, opacities, radii, depths, *size)
    assert len(ellipses.splat_ids) < 0.95 * len(boxes.splat_ids)
    projected = (means2d, conics, opacities, radii, features)
    expected, actual = (composite(*projected, lists, *size) for lists in (boxes, ellipses))
    assert actual[1].max() > 0.3
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@needs_native
def test_native_is_the_same_with_any_number_of_threads() -> None:
    splats, cameras = SCENES["many small"]()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            leaves = with_gradients(splats)
            random_loss(rasterize(leaves, cameras, backend="native")).backward()
            results.append(leaves.log_scales.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_broken_gaussians_are_left_out(backend: str) -> None:
    good, cameras = random_splats(40, 0.05, seed=11), orbit_cameras(20, 24, 2)
    generator = torch.Generator().manual_seed(12)
    bad_values = [math.nan, math.inf, -math.inf, 1e30, -1e30]
    broken = []
    for name in good.tensors():
        for value in bad_values:
            tensors = {n: t[:1].clone() for n, t in good.tensors().items()}
            flat = tensors[name].view(-1)
            flat[torch.randint(len(flat), (), generator=generator)] = value
            broken.append(GaussianSplats(**tensors))
    no_rotation = {**broken[0].tensors(), "means": torch.zeros(1, 3), "quats": torch.zeros(1, 4)}
    broken.append(GaussianSplats(**no_rotation))
    everything = [good, *broken]
    mixed = with_gradients(
        GaussianSplats(
            **{n: torch.cat([s.tensors()[n] for s in everything]) for n in good.tensors()}
        )
    )
    rendered = rasterize(mixed, cameras, backend=backend)
    expected_leaves = with_gradients(good)
    expected = rasterize(expected_leaves, cameras, backend=backend)
    for name in ("rgb", "alpha", "depth"):
        torch.testing.assert_close(getattr(rendered, name), getattr(expected, name))
    assert not rendered.visible[:, len(good) :].any()
    random_loss(rendered).backward()
    random_loss(expected).backward()
    for name, leaf in mixed.tensors().items():
        assert (leaf.grad[len(good) :] == 0).all(), name
        torch.testing.assert_close(leaf.grad[: len(good)], getattr(expected_leaves, name).grad)


@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_cameras_do_not_influence_each_other(backend: str) -> None:
    splats, cameras = random_splats(60, 0.05, seed=13), orbit_cameras(20, 20, 3)
    together = rasterize(splats, cameras, backend=backend)
    for view in range(3):
        alone = rasterize(splats, cameras[view], backend=backend)
        for name in ("rgb", "alpha", "depth", "radii", "means2d"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[view]), name


def test_tiles_do_not_change_the_reference() -> None:
    splats, cameras = random_splats(100, 0.08, seed=6), orbit_cameras(20, 30, 1)
    projected = project_splats(splats.means, splats.quats, splats.scales, splats.opacities, cameras)
    arguments = (
        projected.means2d[0], projected.conics[0], splats.opacities, torch.rand(100, 4),
        projected.depths[0], projected.radii[0], 30, 30,
    )  # fmt: skip
    tiled, whole = (rasterize_reference(*arguments, tile_size=size) for size in (7, 30))
    torch.testing.assert_close(tiled[0], whole[0])
    torch.testing.assert_close(tiled[1], whole[1])
    # Boxes are large enough: with every Gaussian on the whole image nothing is added.
    everywhere = (*arguments[:5], torch.full((100, 2), 1e4), 30, 30)
    dense = rasterize_reference(*everywhere, tile_size=30)
    torch.testing.assert_close(dense[1], whole[1])


def test_reference_gradients_are_those_of_finite_differences() -> None:
    splats, cameras = random_splats(3, 0.2, seed=7, sh_degree=1), orbit_cameras(20, 4, 1)
    double = {name: tensor.double() for name, tensor in splats.tensors().items()}
    double["logit_opacities"] = double["logit_opacities"].clamp(-1, 1)
    double_cameras = Cameras(cameras.viewmats.double(), cameras.Ks.double(), 4, 4)

    def render(*tensors: Tensor) -> Tensor:
        # No threshold is crossed: these Gaussians are far larger than the image of 4 pixels.
        return rasterize(GaussianSplats(*tensors), double_cameras, backend="torch").rgb

    inputs = tuple(tensor.requires_grad_() for tensor in double.values())
    assert torch.autograd.gradcheck(render, inputs, eps=1e-6, atol=1e-5)


def test_empty_scene_and_out_of_view_are_background() -> None:
    camera = front_camera(17, focal=20.0)
    behind = round_splats([[0.0, 0.0, -2.0]], 0.1, [0.9], [[1.0, 0.0, 0.0]])
    rendered = rasterize(behind, camera, background=0.25)
    assert (rendered.rgb == 0.25).all()
    assert not rendered.visible.any()
    none = GaussianSplats(**{name: t[:0] for name, t in behind.tensors().items()})
    assert (rasterize(none, camera).rgb == 1).all()


def test_harmonics_of_degree_one_and_three() -> None:
    # Y_00 = 1 / (2 sqrt(pi)), and with 3DGS's signs Y_11 = -sqrt(3 / 4 pi) x along +x.
    sh = torch.zeros(1, 16, 3)
    sh[0, 0] = torch.tensor([0.2, 0.0, 0.0])
    sh[0, 3, 1] = 0.1
    along_x = evaluate_harmonics(sh, torch.tensor([[1.0, 0.0, 0.0]]))
    expected = [0.5 + 0.2 * 0.28209479, 0.5 - 0.1 * 0.48860251, 0.5]
    torch.testing.assert_close(along_x[0], torch.tensor(expected))
    # Orthonormal: the mean over the sphere of Y_i Y_j is delta_ij / 4 pi.
    generator = torch.Generator().manual_seed(0)
    z = (torch.arange(20000) + 0.5) / 10000 - 1
    angle = torch.arange(20000) * math.pi * (3 - math.sqrt(5))
    radius = (1 - z * z).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)
    basis = []
    for k in range(16):
        sh = torch.zeros(1, 16, 3)
        sh[0, k] = 0.1  # small, so that the clamp at 0 is not reached
        basis.append((evaluate_harmonics(sh, directions)[:, 0] - 0.5) / 0.1)
    gram = torch.stack(basis) @ torch.stack(basis).T / 20000 * 4 * math.pi
    torch.testing.assert_close(gram, torch.eye(16), rtol=0, atol=2e-3)
    assert (evaluate_harmonics(-9 * torch.rand(3, 1, 3, generator=generator), z[:3, None]
            .expand(3, 3)) >= 0).all()  # fmt: skip


def test_errors() -> None:
    splats = random_splats(2, 0.1, seed=0)
    with pytest.raises(ValueError, match="backend must be one of"):
        rasterize(splats, orbit_cameras(20, 8, 1), backend="opengl")
    with pytest.raises(ValueError, match="CUDA"):
        rasterize(splats, orbit_cameras(20, 8, 1), backend="gsplat")
    with pytest.raises(ValueError, match="quats"):
        GaussianSplats(**{**splats.tensors(), "quats": torch.zeros(2, 3)})
    assert pinhole_intrinsics(90, 8, 8)[0, 0].item() == pytest.approx(4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="gsplat rasterises on CUDA only")
def test_gsplat_equals_reference() -> None:
    splats, cameras = random_splats(300, 0.05, seed=8), orbit_cameras(20, 48, 2)
    results = []
    for backend in ("torch", "gsplat"):
        leaves = with_gradients(splats.to("cuda"))
        rendered = rasterize(leaves, cameras.to("cuda"), background=0.3, backend=backend)
        (rendered.rgb.square().sum() + rendered.alpha.sum()).backward()
        results.append((rendered, leaves))
    (expected, expected_leaves), (actual, actual_leaves) = results
    torch.testing.assert_close(actual.rgb, expected.rgb, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(actual.depth, expected.depth, rtol=1e-2, atol=1e-2)
    for name, leaf in expected_leaves.tensors().items():
        difference = (leaf.grad - getattr(actual_leaves, name).grad).norm()
        assert difference <= 2e-2 * leaf.grad.norm(), name
