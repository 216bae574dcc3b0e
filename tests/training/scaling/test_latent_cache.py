"""Cached latents are those of the VAE, and a training on them is one without."""

import pytest
import torch

from hi3d.data.dataset import OrbitDataset
from hi3d.diffusion.conditioning import encode_frames
from hi3d.errors import InputError
from hi3d.training.scaling.cached_training import cache_latents
from hi3d.training.scaling.latent_cache import LatentCache, cache_key
from tests.training.test_random_state import FEW_VIEWS
from tests.training.test_training import build_module, debug_experiment


def test_cached_latents_replace_the_encoder(orbits, tiny_models, tmp_path):
    folder = tmp_path / "latents"

    def experiment(*more: str):
        more = (*FEW_VIEWS, "frames_per_pass=3", *more)
        return debug_experiment("stage1.yaml", orbits, tiny_models, tmp_path / "run", *more)

    assert cache_latents(experiment(), folder) == 4
    module = build_module(experiment(f"latents={folder}"))
    batch = next(iter(torch.utils.data.DataLoader(OrbitDataset(orbits, 16, num_views=4), 2)))
    condition = module.condition(batch)
    cached = module.target_latents(batch, condition)
    live = build_module(experiment()).target_latents(batch, condition)
    torch.testing.assert_close(cached, live, rtol=2e-3, atol=2e-3)
    calls: list[int] = []
    module.frozen["vae"].encode = lambda *_: calls.append(1)
    module.target_latents(batch, condition)
    assert not calls
    key = cache_key(module.frozen["vae"], 16, 4)
    with pytest.raises(InputError, match="another VAE"):
        LatentCache(folder, cache_key(module.frozen["vae"], 32, 4))
    with pytest.raises(InputError, match=r"cache_latents\.py"):
        LatentCache(tmp_path, key)
    shard = next(folder.iterdir())
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        LatentCache(folder, key)


def test_where_latents_cannot_be(orbits, tiny_models, tmp_path):
    with pytest.raises(InputError, match="random_start"):
        debug_experiment(
            "stage1.yaml", orbits, tiny_models, tmp_path, "latents=x", "data.random_start=true"
        )
    more = ["latents=x", "data.random_start=false"]
    with pytest.raises(InputError, match="augments"):
        build_module(debug_experiment("nano/stage1.yaml", orbits, tiny_models, tmp_path, *more))


def test_chunks_do_not_change_latents(tiny_models):
    from hi3d.diffusion.weights import load_network

    vae, frames = load_network(str(tiny_models / "svd"), "vae"), torch.rand(2, 5, 3, 16, 16)
    sizes: list[int] = []
    encode = vae.encode
    vae.encode = lambda x: (sizes.append(len(x)), encode(x))[1]
    with torch.no_grad():
        whole, parts = encode_frames(vae, frames), encode_frames(vae, frames, chunk_size=4)
    assert sizes == [10, 4, 4, 2]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
