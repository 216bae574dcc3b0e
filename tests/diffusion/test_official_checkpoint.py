"""Released checkpoints: every weight finds its place, and damage is told in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hi3d.diffusion.official.checkpoint import (
    UNET,
    Part,
    check_weights,
    official_parts,
    part_state,
    read_checkpoint,
)
from hi3d.diffusion.official.folder import convert_checkpoint
from hi3d.diffusion.official.keys import unet_keys
from hi3d.diffusion.official.sizes import unet_config
from hi3d.diffusion.official.unet import OfficialUNet
from hi3d.diffusion.weights import load_network, load_unet
from hi3d.errors import InputError
from tests.diffusion.official_layout import HEAD_CHANNELS, checkpoint, networks, write

SOURCES = ["official-stage1", "official-stage2", "svd"]
SHARED = Path(os.environ.get("HI3D_SHARED", Path(__file__).parents[3] / "shared"))
"""Reference data beside the checkout: names of the released weights and a tiny network."""
KEYS, TINY = SHARED / "reference/official_keys", SHARED / "data/official_stage1_tiny"
needs_shared = pytest.mark.skipif(
    not TINY.is_dir(), reason=f"no reference data in {SHARED}: set HI3D_SHARED"
)


def convert(source, path, output):
    convert_checkpoint(source, path, output, HEAD_CHANNELS)


@needs_shared
@pytest.mark.parametrize("stage", [1, 2])
def test_every_released_weight_is_taken_and_every_parameter_filled(stage):
    files = ["openclip_vit_h_14", f"stage{stage}_unet_full_size"]
    files += ["stage1_aes_embedder" if stage == 1 else "stage2_depth_embedder_dpt_hybrid"]
    vae = json.loads((KEYS / "vae_full_size.json").read_text())
    shapes = [[p + k, shape] for p in vae["prefixes"] for k, shape in vae["keys"]]
    for file in files:
        shapes += json.loads((KEYS / f"{file}.json").read_text())
    released = {key: torch.empty(shape, device="meta") for key, shape in shapes}
    parts = official_parts(released, f"official-stage{stage}")
    check_weights(released, parts)
    counts = {part.name: sum(p.numel() for p in part.network.parameters()) for part in parts}
    assert counts["unet"] == (1_524_623_082 if stage == 1 else 1_524_321_322)
    state = part_state(released, parts[0])
    assert len(state) == 1428
    for part in parts:
        part.network.load_state_dict(part_state(released, part), assign=True)
    extra = {**released, f"{UNET}input_blocks.0.1.weight": torch.empty(3, device="meta")}
    with pytest.raises(InputError, match="1 unexpected"):
        check_weights(extra, parts)


@needs_shared
@pytest.mark.parametrize("case", ["t16_16x16", "t4_16x16", "t4_16x16_ctx3", "t4_16x24"])
def test_official_network_gives_the_released_codes_output(case):
    released = load_file(TINY / "unet.safetensors")
    shapes = {key.removeprefix(UNET): tuple(value.shape) for key, value in released.items()}
    settings = unet_config(shapes, 3, HEAD_CHANNELS)
    unet = OfficialUNet(**settings).eval()
    part = Part("unet", UNET, unet, unet_keys(settings["layers_per_block"], 4))
    check_weights(released, [part])
    unet.load_state_dict(part_state(released, part))
    values = load_file(TINY / "unet_io.safetensors")
    context, vector = values[f"{case}.context"], values[f"{case}.y"]
    videos = len(vector)
    sample = values[f"{case}.x"].unflatten(0, (videos, -1))
    level = values[f"{case}.timesteps"].unflatten(0, (videos, -1))[:, 0]
    with torch.no_grad():
        found = unet(sample, level, context, vector).sample.flatten(0, 1)
    torch.testing.assert_close(found, values[f"{case}.output"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("layout", ["deepspeed", "lightning", "plain", "safetensors"])
def test_converted_networks_are_those_of_the_file(tmp_path, source, layout):
    parts = networks(source)
    write(tmp_path, checkpoint(source, parts), layout)
    output = tmp_path / "out" / "model"
    convert(source, tmp_path, output)
    for name, part in parts.items():
        found = load_network(str(output), name)
        assert type(found) is type(part)
        for key, value in part.state_dict().items():
            torch.testing.assert_close(found.state_dict()[key], value, atol=0, rtol=0)
    assert sorted(p.name for p in output.parent.iterdir()) == ["model"]


@pytest.mark.parametrize("source", SOURCES)
def test_converted_networks_compute_what_the_originals_do(tmp_path, source):
    parts = networks(source)
    convert(source, write(tmp_path, checkpoint(source, parts), "plain"), tmp_path / "model")
    inputs = {
        "vae": torch.randn(2, 3, 16, 16),
        "image_encoder": torch.randn(2, 3, 16, 16),
        "aesthetic_scorer": torch.rand(2, 3, 40, 40),
        "depth_estimator": torch.randn(2, 3, 32, 32),
    }
    for name, value in inputs.items():
        if name not in parts:
            continue
        found, part = load_network(str(tmp_path / "model"), name), parts[name]
        with torch.no_grad():
            if name == "vae":
                pair = [n.encode(value).latent_dist.mean for n in (found, part)]
            elif name == "aesthetic_scorer":
                pair = [n(value) for n in (found, part)]
            else:
                pair = [n(pixel_values=value)[0] for n in (found, part)]
        torch.testing.assert_close(*pair)


def test_svd_folder_starts_a_training_and_an_official_one_says_why_not(tmp_path):
    for source in ("svd", "official-stage1"):
        state = checkpoint(source, networks(source))
        convert(source, write(tmp_path, state, "plain"), tmp_path / source)
    assert load_unet(str(tmp_path / "svd"), 13).config.in_channels == 13
    with pytest.raises(InputError, match="released code's conditions"):
        load_unet(str(tmp_path / "official-stage1"), 8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "truncated or foreign"),
        ("pickle", "truncated or foreign"),
        ("missing", r"1 missing \(first_stage_model.quant_conv.bias\)"),
        ("misshapen", r"1 misshapen \(model.diffusion_model.out.2.bias \(7,\), expected \(4,\)\)"),
        ("unexpected", r"1 unexpected \(control_model.weight\)"),
        ("other stage", "no weight 'visual.proj'|aesthetic"),
        ("no unet", "holds no model.diffusion_model"),
        ("output", "not empty"),
        ("no file", "holds 0 checkpoint files"),
        ("two files", "holds 2 checkpoint files"),
    ],
)
def test_damage_is_one_line_and_leaves_nothing(tmp_path, damage, message):
    source = "official-stage1"
    kind = "official-stage2" if damage == "other stage" else source
    state = checkpoint(kind, networks(kind))
    if damage == "missing":
        del state["first_stage_model.quant_conv.bias"]
        del state["conditioner.embedders.3.encoder.quant_conv.bias"]
    if damage == "misshapen":
        state[f"{UNET}out.2.bias"] = torch.zeros(7)
    if damage == "unexpected":
        state["control_model.weight"] = torch.zeros(1)
    if damage == "no unet":
        state = {"weight": torch.zeros(1)}
    folder, output = tmp_path / "in", tmp_path / "model"
    folder.mkdir()
    file = write(folder, state, "plain")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if damage == "pickle":
        torch.save({"module": state, "config": Path("x"), "run": SystemExit}, file)
    if damage == "output":
        output.mkdir()
        (output / "notes.txt").write_text("mine")
    if damage == "no file":
        file.unlink()
    if damage == "two files":
        (folder / "other.ckpt").write_bytes(file.read_bytes())
        file.rename(folder / "one.pt")
    with pytest.raises(InputError, match=message) as error:
        convert(source, folder, output)
    assert "\n" not in str(error.value)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == (["in", "model"] if damage == "output" else ["in"])


MEASURE = """
import resource, sys
from pathlib import Path
from hi3d.diffusion.official import folder
from hi3d.progress import set_quiet
set_quiet(True)
folder.SHARD_SIZE = "50MB"
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
folder.convert_checkpoint("svd", sys.argv[1], sys.argv[2], 32)
print((peak() - before) / Path(sys.argv[1]).stat().st_size)
"""


def test_memory_stays_below_twice_the_file(tmp_path):
    parts = networks("svd")
    unet = parts["unet"]
    parts["unet"] = type(unet)(**{**unet.config, "block_out_channels": (192, 384)})
    file = write(tmp_path, checkpoint("svd", parts), "deepspeed")
    assert file.stat().st_size > 150e6
    command = [sys.executable, "-c", MEASURE, str(file), str(tmp_path / "model")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split()[-1]) < 2


def test_file_is_not_read_before_it_is_needed(tmp_path):
    file = write(tmp_path, {f"{UNET}a": torch.arange(3.0)}, "deepspeed")
    assert torch.equal(read_checkpoint(file)[f"{UNET}a"], torch.arange(3.0))
