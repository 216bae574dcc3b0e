"""Masks change the object only, by as much as drawn, and with the content they claim."""

import math

import pytest
import torch

from hi3d.degradation.draws import DegradationConfig, DegradationPass
from hi3d.degradation.kernels import SincConfig
from hi3d.degradation.masks import MASK_KINDS, MaskConfig, draw_regions, replace_regions
from hi3d.degradation.pipeline import degrade
from hi3d.degradation.random_draws import Draws, SharedDraws

SIDE = 96


@pytest.fixture
def orbit():
    """Six frames of a ring (a hole inside), each of its own colours, over white."""
    y, x = torch.meshgrid(torch.arange(SIDE) - 44, torch.arange(SIDE) - 50, indexing="ij")
    r = (x**2 + y**2).sqrt()
    alpha = ((r > 8) & (r < 34)).float().expand(6, 1, SIDE, SIDE)
    rgb = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.9
    return torch.where(alpha > 0, rgb, torch.ones_like(rgb)), alpha


def regions(config: MaskConfig, seed: int, num_views: int = 6, shared: bool = False):
    generator = torch.Generator().manual_seed(seed)
    return draw_regions(Draws(num_views, SharedDraws(masks=shared), generator), config)


def always(kind: str, **changes) -> MaskConfig:
    weights = dict.fromkeys(MASK_KINDS, 0.0) | {kind: 1.0}
    return MaskConfig(probability=1.0, kind_weights=weights, **changes)


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_only_the_object_changes(orbit, kind, seed):
    rgb, alpha = orbit
    drawn = regions(always(kind), seed)
    changed = 0
    for view in range(6):
        masked = replace_regions(rgb, alpha, drawn, view)
        outside = (alpha[view] == 0).expand_as(masked)
        assert torch.equal(masked[outside], rgb[view][outside])
        changed += int((masked != rgb[view]).any(dim=0).sum())
    assert changed > 50


def test_in_the_whole_degradation_too(orbit):
    rgb, alpha = (x[None] for x in orbit)
    config = DegradationConfig(
        masks=MaskConfig(probability=1.0),
        first=DegradationPass(
            0,
            noise_probability=0,
            jpeg_probability=0,
            resize_up_probability=0,
            resize_down_probability=0,
        ),
        second=None,
        bottleneck=None,
        final_sinc=SincConfig(probability=0),
        white_background=False,
    )
    rgb = (rgb * 255).round() / 255
    masked = degrade(rgb, alpha, config, torch.Generator().manual_seed(0))
    changed = (masked != rgb).any(dim=2, keepdim=True)
    assert not (changed & (alpha == 0)).any()
    assert not changed[:, 0].any()
    assert changed[:, 1:].any(dim=(0, 2, 3, 4)).all()


def test_removed_is_white_and_as_large_as_drawn():
    """A circle of the drawn diameter, over the square root of the object's area."""
    rgb, alpha = torch.zeros(1, 3, 200, 200), torch.ones(1, 1, 200, 200)
    config = always("removed", count=(1, 1), diameter=(0.3, 0.3), roughness=0.0)
    areas = []
    for seed in range(30):
        masked = replace_regions(rgb, alpha, regions(config, seed, 1), 0)
        assert set(masked.unique().tolist()) == {0.0, 1.0}
        areas.append(int(masked[0].sum()))
    assert abs(max(areas) - math.pi * 30**2) < 60  # uncut: radius 0.15 * 200 px
    assert min(areas) > math.pi * 30**2 / 4 - 60  # at worst centred on a corner


def test_displaced_content_comes_from_nearby(orbit):
    """With the colour telling the place, the distance it came from is the drawn one."""
    y, x = torch.meshgrid(torch.arange(200.0), torch.arange(200.0), indexing="ij")
    rgb = torch.stack([x, y, torch.zeros_like(x)])[None]
    alpha = torch.ones(1, 1, 200, 200)
    config = always("displaced", count=(1, 1), displacement=(0.1, 0.1))
    drawn = regions(config, 2, 1)
    masked = replace_regions(rgb, alpha, drawn, 0)
    changed = (masked != rgb[0]).any(dim=0)
    inner = changed & (x > 25) & (x < 175) & (y > 25) & (y < 175)
    distance = (masked - rgb[0])[:2, inner].norm(dim=0)
    assert inner.any()
    assert (distance - 20).abs().max() <= 1  # 0.1 * 200 px, rounded to whole pixels


def test_other_frame_content_is_a_neighbours(orbit):
    rgb, alpha = orbit
    drawn = regions(always("other_frame", count=(1, 1), frame_offset=(2, 2)), 0)
    for view in range(6):
        masked = replace_regions(rgb, alpha, drawn, view)
        changed = (masked != rgb[view]).any(dim=0)
        other = (view + int(drawn[0].frame_offsets[view])) % 6
        assert other in ((view + 2) % 6, (view - 2) % 6)
        assert torch.equal(masked[:, changed], rgb[other][:, changed])


def test_shared_masks_are_alike_in_all_frames(orbit):
    rgb, alpha = orbit
    drawn = regions(always("removed"), 0, shared=True)
    masks = [(replace_regions(rgb, alpha, drawn, v) == 1).all(dim=0) for v in range(6)]
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    drawn = regions(always("removed"), 0)
    masks = [(replace_regions(rgb, alpha, drawn, v) == 1).all(dim=0) for v in range(6)]
    assert not torch.equal(masks[0], masks[1])


def test_centres_are_spread_over_the_object(orbit):
    """Tiny regions: every row of the object is hit in proportion to its pixels."""
    rgb, alpha = orbit
    config = always("removed", count=(1, 1), diameter=(0.0, 0.0))
    hits = torch.zeros(SIDE)
    drawn = regions(config, 0, num_views=600)
    for view in range(600):
        single = [type(drawn[0])(*(value[view : view + 1] for value in vars(drawn[0]).values()))]
        masked = replace_regions(rgb[:1], alpha[:1], single, 0)
        changed = (masked != rgb[0]).any(dim=0)
        assert changed.sum() == 1
        hits += changed.sum(dim=1)
    share = alpha[0, 0].sum(dim=1) / alpha[0, 0].sum()
    assert (hits.cumsum(0) / 600 - share.cumsum(0)).abs().max() < 1.95 / math.sqrt(600)


def test_nothing_to_mask(orbit):
    rgb, alpha = orbit
    drawn = regions(MaskConfig(probability=0.0), 0)
    assert torch.equal(replace_regions(rgb, alpha, drawn, 1), rgb[1])
    drawn = regions(always("removed"), 0)
    assert torch.equal(replace_regions(rgb, torch.zeros_like(alpha), drawn, 1), rgb[1])
