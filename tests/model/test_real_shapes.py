"""The published sizes, 1.3B and 14B, without their weights: loading, counting, and the passes of a chunk."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import sf_core
from sf_core.model.architecture import WanArchitecture
from sf_core.model.kv_cache import RollingKVCache
from sf_core.model.place import Place
from sf_core.model.rope import rope_rotations
from tests.files.formats import diffusers

SIZE = (60, 104)  # latents of 480 x 832 pixels
ARCHITECTURES = {
    "1.3B": WanArchitecture(dim=1536, ffn_dim=8960, num_layers=30, num_heads=12),
    "14B": WanArchitecture(dim=5120, ffn_dim=13824, num_layers=40, num_heads=40),
}
PARAMETERS = {"1.3B": 1_418_996_800, "14B": 14_288_491_584}
# Algorithm notes, section 1.12: keys and values in bf16, MiB a latent frame, GiB at windows of 6, 9, 12, 21 frames
CACHES = {"1.3B": (274, {6: 1.61, 9: 2.41, 12: 3.21, 21: 5.62}), "14B": (1219, {6: 7.1, 9: 10.7, 12: 14.3, 21: 25.0})}


def published_state(arch: WanArchitecture) -> dict[str, Tensor]:
    """Names and shapes as Wan's own files have them, written down apart from the code under test."""
    dim, ffn = arch.dim, arch.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {"patch_embedding.weight": (dim, 16, 1, 2, 2), "patch_embedding.bias": (dim,)}
    linears = {
        "text_embedding.0": (dim, 4096),
        "text_embedding.2": (dim, dim),
        "time_embedding.0": (dim, 256),
        "time_embedding.2": (dim, dim),
        "time_projection.1": (6 * dim, dim),
        "head.head": (64, dim),
    }
    for layer in range(arch.num_layers):
        block = f"blocks.{layer}"
        for attention in ("self_attn", "cross_attn"):
            linears |= {f"{block}.{attention}.{part}": (dim, dim) for part in "qkvo"}
            shapes |= {f"{block}.{attention}.norm_{part}.weight": (dim,) for part in "qk"}
        linears |= {f"{block}.ffn.0": (ffn, dim), f"{block}.ffn.2": (dim, ffn)}
        shapes |= {f"{block}.norm3.{kind}": (dim,) for kind in ("weight", "bias")}
        shapes[f"{block}.modulation"] = (1, 6, dim)
    shapes["head.modulation"] = (1, 2, dim)
    for name, (out, width) in linears.items():
        shapes |= {f"{name}.weight": (out, width), f"{name}.bias": (out,)}
    return {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_published_checkpoint_loads(name: str) -> None:
    state = published_state(ARCHITECTURES[name])
    assert sum(tensor.numel() for tensor in state.values()) == PARAMETERS[name]
    model = sf_core.load_model({"generator_ema": {f"model.{n}": t for n, t in state.items()}}, device="meta")
    assert model.arch == ARCHITECTURES[name]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    renamed = {diffusers(n): tensor for n, tensor in state.items()}
    assert sf_core.load_model(renamed, device="meta", dtype=torch.bfloat16).arch == ARCHITECTURES[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tokens_and_cache_bytes_are_those_of_the_notes(name: str) -> None:
    arch = ARCHITECTURES[name]
    model = sf_core.load_model(published_state(arch), device="meta", dtype=torch.bfloat16)
    rows, columns = arch.token_grid(SIZE)
    assert [rows * columns * frames for frames in (1, 3, 21)] == [1560, 4680, 32760]
    text = arch.num_layers * 2 * 512 * arch.dim * 2  # of the prompt: keys and values of 512 rows
    frame, windows = CACHES[name]
    for window, gib in windows.items():
        counted = model.cache_bytes(sf_core.RolloutConfig(window_frames=window), SIZE) - text
        assert counted == window * 1560 * arch.num_layers * 2 * arch.dim * 2
        assert round(counted / window / 2**20) == frame
        assert counted / 2**30 == pytest.approx(gib, abs=0.05)
    config = sf_core.RolloutConfig(window_frames=12, sink_frames=3)
    assert model.cache_bytes(config, SIZE, batch=2) == 2 * model.cache_bytes(config, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "device"), [("1.3B", "cpu"), ("1.3B", "meta"), ("14B", "meta")])
def test_a_denoising_step_and_a_write_pass(name: str, device: str) -> None:
    """Without data: ``cpu`` are fake tensors."""
    arch, config = ARCHITECTURES[name], sf_core.RolloutConfig(window_frames=12, sink_frames=3)
    with FakeTensorMode(allow_non_fake_inputs=True) if device == "cpu" else nullcontext(), torch.no_grad():
        state = {n: torch.empty(t.shape, dtype=t.dtype, device=device) for n, t in published_state(arch).items()}
        model = sf_core.load_model(state, device=device, dtype=torch.bfloat16)
        model.attention = "sdpa"
        model.use_attention()
        cache = RollingKVCache(model.cache_shape(config, SIZE, 1))
        text = model.text_keys_values(torch.zeros(1, 20, 4096, device=device))
        assert text[0][0].shape == (1, 512, arch.num_heads, 128)
        for chunk in range(5):  # the ring rolls
            place = Place(3 * chunk, 3, 0, 3)
            rotations = rope_rotations(range(place.start, place.end), 30, 52, arch.head_dim, torch.device(device))
            x, timestep = torch.zeros(1, 16, 3, *SIZE, device=device), torch.ones(1, 1, device=device)
            views = cache.open(place)
            assert views[0][0].shape == (1, min(3 * (chunk + 1), 12) * 1560, arch.num_heads, 128)
            flow = model.flow_over_cache(x, timestep, rotations, text, views)
            assert (flow.shape, flow.dtype) == (x.shape, torch.float32)
            model.write_over_cache(x, timestep, rotations, text, views)
            cache.commit(place)
