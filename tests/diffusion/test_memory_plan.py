"""Memory counted from shapes, against what torch allocates and against the cards' sizes."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch.profiler import ProfilerActivity, profile
from transformers import DPTConfig, DPTForDepthEstimation

from hi3d.diffusion.conditioning import encode_frames
from hi3d.diffusion.memory import plan as memory_plan
from hi3d.diffusion.memory.count import peak_bytes, weight_bytes
from hi3d.diffusion.memory.modes import MEMORY_MODES, set_parts
from hi3d.diffusion.memory.plan import GIB, as_table, stage_plan
from hi3d.diffusion.unet import UNetConfig, build_unet, stage2_in_channels

TOLERANCE = 0.15
"""Of the counted peak over the allocated one: kernels on the CPU have buffers of their own."""


def allocated_bytes(computation) -> int:
    """The most that torch's allocator held on the CPU beside what it held before."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        computation()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def small_unet(device: str):
    with torch.device(device):
        unet = build_unet(UNetConfig([64, 64], 1, [2, 2], 32, 32), 13, 4)
    return unet.to(device).eval()


def small_vae(device: str, temporal: bool, **more):
    sizes = {"block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2}
    with torch.device(device):
        if temporal:
            return AutoencoderKLTemporalDecoder(**sizes, **more).to(device).eval()
        up = ("UpDecoderBlock2D",) * 2
        return AutoencoderKL(**sizes, up_block_types=up, **more).to(device).eval()


def test_a_count_by_hand():
    def computation():
        a = torch.empty(1000, device="meta")  # 4,000 bytes
        b = a + 1  # 8,000
        del a
        b.mul_(2)  # in place
        c = b.view(10, 100) + b.view(10, 100)  # 8,000
        return c.half()  # 10,000 with b and c

    assert peak_bytes(computation) == 10_000


@pytest.mark.parametrize("parts", [1, 4])
def test_counted_unet_is_what_torch_allocates(parts):
    counted, real = small_unet("meta"), small_unet("cpu")
    for unet in (counted, real):
        set_parts(unet, parts)
    latents = (16, 4, 24, 24)
    count = peak_bytes(lambda: memory_plan.predict(counted, 1, latents))
    allocated = allocated_bytes(lambda: memory_plan.predict(real, 1, latents))
    assert count == pytest.approx(allocated, rel=TOLERANCE)
    assert weight_bytes(counted) == weight_bytes(real)


@pytest.mark.parametrize("temporal", [False, True])
def test_counted_vae_is_what_torch_allocates(temporal):
    found = []
    for device, measure in (("meta", peak_bytes), ("cpu", allocated_bytes)):
        vae = small_vae(device, temporal)
        found.append(
            (
                measure(lambda vae=vae: memory_plan.encode(vae, 2, 64)),
                measure(lambda vae=vae: memory_plan.decode(vae, (2, 4, 32, 32))),
            )
        )
    assert found[0] == pytest.approx(found[1], rel=TOLERANCE)


@pytest.fixture(scope="module")
def full_size():
    """Stage 2 of the paper in half precision, with shapes and no weights."""
    blocks = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    with torch.device("meta"):
        networks = {
            "vae": AutoencoderKLTemporalDecoder(
                down_block_types=("DownEncoderBlock2D",) * 4, force_upcast=True, **blocks
            ),
            "unet": build_unet(UNetConfig(), stage2_in_channels(4), 4),
            "depth_estimator": DPTForDepthEstimation(DPTConfig(image_size=384)),
        }
    return {name: network.to("meta", torch.float16).eval() for name, network in networks.items()}


def test_stage_2_fits_the_cards(full_size):
    peaks = {}
    for name in ("balanced", "low"):
        steps = stage_plan(full_size, 1024, MEMORY_MODES[name], decode_chunk=2)
        assert [each.step for each in steps] == ["encode", "depth", "denoise", "decode"]
        peaks[name] = max(each.peak for each in steps)
        assert "denoise" in as_table({"stage2": steps})
    assert peaks["balanced"] < 24 * GIB
    assert peaks["low"] < 16 * GIB
    assert peaks["low"] < peaks["balanced"]


def test_the_encoder_runs_in_float32_where_its_config_says_so():
    seen = []
    for forced in (True, False):
        vae = small_vae("meta", False, force_upcast=forced).half()
        vae.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
        encode_frames(vae, torch.empty(1, 2, 3, 16, 16, device="meta"))
        assert vae.dtype == torch.float16
    assert seen == [torch.float32, torch.float16]
