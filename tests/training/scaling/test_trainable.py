"""Trainings of some weights: the others stay bit for bit; adapters are merged when exported."""

import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from safetensors.torch import load_file

from hi3d.diffusion.unet import UNetConfig, build_unet
from hi3d.errors import InputError
from hi3d.training.scaling.trainable import (
    LoraConfig,
    build_optimizer,
    choose_trainable,
    merged,
    save_adapter,
)
from tests.training.test_random_state import FEW_VIEWS, load
from tests.training.test_training import build_module, debug_experiment, load_experiment, train

CONFIGS = Path(__file__).parents[3] / "configs"


def small_unet():
    torch.manual_seed(0)
    config = UNetConfig([32, 32], 1, [1, 1], 16, 32)
    return build_unet(config, 8, 4).eval()


def run(unet) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 2, 8, 8, 8, generator=generator)
    embeds = torch.randn(1, 1, 16, generator=generator)
    with torch.no_grad():
        return unet(sample, torch.tensor([0.3]), embeds, torch.tensor([[20.0, 0.02]])).sample


@pytest.mark.parametrize(
    ("trainable", "yes", "no"),
    [
        ("temporal", "temporal_transformer_blocks", "spatial_res_block"),
        ("temporal", "conv_in.weight", "conv_out.weight"),
        ("attention", "attn1.to_q", "proj_in"),
        (["conv_out", r"^mid_block\."], "mid_block.attentions", "up_blocks"),
    ],
)
def test_parts_by_name(trainable, yes, no):
    unet = small_unet()
    choose_trainable(unet, trainable, LoraConfig())
    found = {name: p.requires_grad for name, p in unet.named_parameters()}
    assert all(trained for name, trained in found.items() if yes in name)
    assert any(yes in name for name in found)
    outside = [trained for name, trained in found.items() if no in name and yes not in name]
    # In a spatial block of a temporal part's name nothing is trained either.
    assert outside
    assert not all(outside)


@pytest.mark.parametrize("trainable", ["everything", ["no_such_layer"], ["("], [], 3])
def test_parts_that_are_none(trainable):
    with pytest.raises(InputError, match="trainable"):
        choose_trainable(small_unet(), trainable, LoraConfig())


def test_parts_are_read_from_a_config():
    path = CONFIGS / "stage1.yaml"
    assert load_experiment(path, ["trainable=temporal"]).trainable == "temporal"
    assert load_experiment(path, ["trainable=[conv_in,attn1]"]).trainable == ["conv_in", "attn1"]
    with pytest.raises(InputError, match="choose all, temporal, attention, lora"):
        load_experiment(path, ["trainable=most"])


def test_what_is_not_trained_stays(orbits, tiny_models, tmp_path):
    more = [*FEW_VIEWS, "trainable=temporal", "optim.ema_decay=0.5", "data.val=null"]
    experiment = debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more)
    before = build_module(experiment).network.state_dict()
    train(experiment)
    after = load(tmp_path / "run")["state_dict"]
    moved = {
        name for name, value in before.items() if not torch.equal(after["network." + name], value)
    }
    assert moved
    assert all(re.search("temporal|time_|^conv_in|^add_embedding", name) for name in moved)


def test_merged_adapters_give_what_adapters_give(tmp_path):
    peft = pytest.importorskip("peft")
    unet, lora = small_unet(), LoraConfig(rank=2, alpha=3.0)
    before = run(unet)
    names = set(unet.state_dict())
    choose_trainable(unet, "lora", lora)
    torch.testing.assert_close(run(unet), before, atol=1e-6, rtol=1e-5)  # they begin as no change
    trained = [name for name, p in unet.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    expected = run(unet)
    assert (expected - before).abs().max() > 1e-3
    state = merged(unet.state_dict(), lora)
    assert set(state) == names
    plain = small_unet()
    plain.load_state_dict(state)
    torch.testing.assert_close(run(plain), expected, atol=2e-5, rtol=1e-4)
    save_adapter({k: v for k, v in unet.state_dict().items() if ".lora_" in k}, lora, tmp_path)
    loaded = peft.PeftModel.from_pretrained(small_unet(), str(tmp_path))
    torch.testing.assert_close(run(loaded.base_model.model), expected, atol=2e-5, rtol=1e-4)


def test_a_training_of_adapters_exports_both(orbits, tiny_models, tmp_path):
    pytest.importorskip("peft")
    more = [*FEW_VIEWS, "trainable=lora", "lora.rank=2", "optim.lr=1e-2", "data.val=null"]
    model = train(debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more))
    exported = load_file(next((model / "unet").glob("*.safetensors")))
    before = load_file(next((tiny_models / "svd/unet").glob("*.safetensors")))
    changed = [n for n in exported if n in before and not torch.equal(exported[n], before[n])]
    assert changed
    assert all(re.search(r"\.to_(q|k|v|out\.0)\.weight|add_embedding|conv_in", n) for n in changed)
    assert all("lora_" in name for name in load_file(model / "adapter/adapter_model.safetensors"))


def test_the_fused_optimizer_lets_mixed_precision_clip():
    layer = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(list(layer.parameters()), "adamw", lr=0.1)
    layer(torch.ones(1, 2)).sum().mul(100).backward()
    MixedPrecision("bf16-mixed", "cpu").clip_gradients(optimizer, 1.0)
    assert torch.nn.utils.get_total_norm(p.grad for p in layer.parameters()) == pytest.approx(1.0)


def test_extras_that_are_missing(monkeypatch):
    monkeypatch.setattr("hi3d.training.scaling.trainable.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'hi3d\[8bit\]'"):
        build_optimizer([], "adamw_8bit")
    with pytest.raises(InputError, match=r"pip install 'hi3d\[lora\]'"):
        choose_trainable(small_unet(), "lora", LoraConfig())
    with pytest.raises(InputError, match="choose adamw"):
        build_optimizer([], "sgd")
