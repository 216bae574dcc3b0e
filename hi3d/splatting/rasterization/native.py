"""The rasterizer on the CPU: autograd around the kernels of `splat_raster.c`."""

from pathlib import Path

import torch
from torch import Tensor

from hi3d.native import Kernel, load_kernel, num_threads
from hi3d.splatting.rasterization.tiles import TileLists

TILE_SIZE = 16  # TILE of the kernel
NUM_FEATURES = 4  # CHANNELS of the kernel
NUM_GRADIENTS = 10  # GRADIENTS of the kernel


def raster_kernel() -> Kernel | None:
    """The compiled kernel, or None where there is no compiler."""
    return load_kernel(Path(__file__).with_name("splat_raster.c"))


def rasterize_native(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    features: Tensor,  # [N, 4]
    depths: Tensor,  # [N]
    radii: Tensor,  # [N, 2]
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """The fast twin of `rasterize_reference` for float32 on the CPU and 4 features.

    Returns:
        blended features [4, H, W] over zero, and alpha [H, W] in [0, 1].

    Raises:
        ValueError: wrong dtype or shape, or there is no compiler (see `raster_kernel`).
    """
    num = len(means2d)
    for name, tensor, shape in (
        ("means2d", means2d, (num, 2)),
        ("conics", conics, (num, 3)),
        ("opacities", opacities, (num,)),
        ("features", features, (num, NUM_FEATURES)),
        ("radii", radii, (num, 2)),
    ):
        if tensor.shape != shape or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(f"{name} must be {list(shape)} float32 on the CPU")
    if raster_kernel() is None:
        raise ValueError("the rasterizer is not compiled: use backend='torch'")
    lists = tile_lists(means2d, conics, opacities, radii, depths, width, height)
    return composite(means2d, conics, opacities, radii, features, lists, width, height)


def composite(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    radii: Tensor,
    features: Tensor,
    lists: TileLists,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """`rasterize_native` with given lists of the tiles."""
    return _RasterizeNative.apply(means2d, conics, opacities, radii, features, lists, width, height)


@torch.no_grad()
def tile_lists(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    radii: Tensor,  # [N, 2]
    depths: Tensor,  # [N]
    width: int,
    height: int,
) -> TileLists:
    """`bin_into_tiles` with the ellipse of alpha = 1/255 instead of the box around it.

    Long Gaussians that lie askew reach far fewer tiles so.
    """
    kernel = raster_kernel()
    assert kernel is not None
    num = len(means2d)
    inputs = [t.detach().contiguous() for t in (means2d, conics, opacities, radii)]
    order = torch.argsort(depths, stable=True)
    rooms, firsts = (torch.empty(num + 1, dtype=torch.int64) for _ in range(2))
    num_rooms = kernel.splat_rooms(inputs[0], inputs[3], num, width, height, rooms)
    tiles, splat_ids, slots = (torch.empty(num_rooms, dtype=torch.int64) for _ in range(3))
    num_tiles = -(-width // TILE_SIZE) * -(-height // TILE_SIZE)
    offsets = torch.empty(num_tiles + 1, dtype=torch.int64)
    num_entries = kernel.splat_lists(
        *inputs, order, num, width, height, num_threads(),
        rooms, tiles, splat_ids, slots, offsets, firsts,
    )  # fmt: skip
    return TileLists(splat_ids[:num_entries], offsets, slots[:num_entries], firsts)


class _RasterizeNative(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        radii: Tensor,
        features: Tensor,
        lists: TileLists,
        width: int,
        height: int,
    ) -> tuple[Tensor, Tensor]:
        kernel = raster_kernel()
        assert kernel is not None
        inputs = [t.contiguous() for t in (means2d, conics, opacities, radii, features)]
        image = torch.empty(NUM_FEATURES, height, width)
        transmittance = torch.empty(height, width)
        last = torch.empty(height, width, dtype=torch.int32)
        kernel.splat_forward(
            *inputs, lists.splat_ids, lists.offsets, width, height, num_threads(),
            image, transmittance, last,
        )  # fmt: skip
        ctx.save_for_backward(*inputs, transmittance, last)
        ctx.lists = lists
        return image, 1 - transmittance

    @staticmethod
    def backward(ctx, grad_image: Tensor, grad_alpha: Tensor):  # type: ignore[override]
        kernel = raster_kernel()
        assert kernel is not None
        *inputs, transmittance, last = ctx.saved_tensors
        lists: TileLists = ctx.lists
        num, (height, width) = len(inputs[0]), transmittance.shape
        scratch = torch.empty(len(lists.splat_ids), NUM_GRADIENTS)
        grads = torch.empty(num, NUM_GRADIENTS)
        grad_image, grad_alpha = grad_image.contiguous(), grad_alpha.contiguous()
        kernel.splat_backward(
            *inputs, lists.splat_ids, lists.offsets, lists.slots, lists.firsts,
            num, width, height, num_threads(),
            transmittance, last, grad_image, grad_alpha, scratch, grads,
        )  # fmt: skip
        return grads[:, :2], grads[:, 2:5], grads[:, 5], None, grads[:, 6:], None, None, None
