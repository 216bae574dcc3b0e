import torch

from hi3d.splatting.rasterization.tiles import bin_into_tiles


def test_more_places_than_32_bits_count() -> None:
    # 2,048 x 2,048 tiles times 1,500 Gaussians: 6.3e9 pairs, of which each Gaussian has one.
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(2048, (1500, 2), generator=generator)
    lists = bin_into_tiles(
        means2d=tiles * 16 + 8.0,
        radii=torch.full((1500, 2), 2.0),
        depths=torch.linspace(2, 1, 1500),
        width=32768,
        height=32768,
        tile_size=16,
    )
    numbers = tiles[:, 1] * 2048 + tiles[:, 0]
    expected = sorted(range(1500), key=lambda i: (numbers[i].item(), -i))  # later is nearer
    assert lists.splat_ids.tolist() == expected
    assert lists.offsets[-1] == 1500
    assert lists.offsets[numbers.max() + 1] == 1500


def test_tile_lists_by_hand() -> None:
    # 32x32 pixels, tiles of 16. Gaussian 0 touches all four tiles; 1, nearer, only the last; 2 is
    # left out.
    lists = bin_into_tiles(
        means2d=torch.tensor([[16.0, 16.0], [24.0, 24.0], [8.0, 8.0]]),
        radii=torch.tensor([[3.0, 3.0], [3.0, 3.0], [0.0, 0.0]]),
        depths=torch.tensor([2.0, 1.0, 3.0]),
        width=32,
        height=32,
        tile_size=16,
    )
    assert lists.splat_ids.tolist() == [0, 0, 0, 1, 0]
    assert lists.offsets.tolist() == [0, 1, 2, 3, 5]
    assert lists.firsts.tolist() == [0, 4, 5, 5]
    assert lists.slots.tolist() == [0, 1, 2, 4, 3]
