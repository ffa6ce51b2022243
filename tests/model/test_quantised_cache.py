"""A quantised cache: near full precision, exact in bytes, the same bits every time, and never whole in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sf_core
from sf_core.model import attention_parts, cache_shape
from sf_core.model.architecture import PUBLISHED_SIZES
from sf_core.model.attention import sdpa
from sf_core.model.attention_parts import attend_to_parts, by_products
from sf_core.model.kv_formats import FORMATS, FrameFormat, StoredFrames, group_of
from sf_core.model.place import Place
from sf_core.model.quantised_cache import QuantisedKVCache, new_cache
from sf_core.rollout_rules import KV_DTYPES
from tests.helpers import SIZE, prompt, random_model, relative

every_format = pytest.mark.parametrize("kv_dtype", KV_DTYPES)
# relative error of Gaussian keys or values: a step of the codes over the square root of 12, or fp8's half step
MOST_ERROR = {"fp8": 0.03, "int8": 0.01, "int4": 0.15}


def config(kv_dtype: str | None, **settings: Any) -> sf_core.RolloutConfig:
    given: dict[str, Any] = {"chunk_frames": 2, "window_frames": 9, "sink_frames": 1, "denoising_steps": (1000, 500)}
    return sf_core.RolloutConfig(kv_dtype=kv_dtype, **(given | settings))


def run(kv_dtype: str | None, chunks: int = 8, **settings: Any) -> Tensor:
    session = sf_core.Session.start(random_model(layers=2), prompt(0), SIZE, config(kv_dtype, **settings))
    for _ in range(chunks):
        session, _ = session.next_chunk()
    return session.latents


def round_trip(kind: FrameFormat, frames: Tensor) -> Tensor:
    batch, count, tokens, heads, width = frames.shape
    sizes = (kind, count + 1, batch, tokens, heads, width, frames.dtype)
    stored = StoredFrames.zeros(*sizes, lambda shape, dtype: torch.zeros(shape, dtype=dtype))
    stored.put(1, frames)
    decoded = torch.empty_like(frames)
    stored.get(1, decoded)
    return decoded


@pytest.mark.parametrize("kernel", [None, by_products])
def test_parts_that_are_merged_are_attention_to_the_whole(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel is not None:
        monkeypatch.setattr(attention_parts, "part_kernel", lambda q: kernel)
    q = 4 * torch.randn(2, attention_parts.QUERIES_AT_ONCE + 7, 2, 16)
    k, v = (torch.randn(2, 50, 2, 16) for _ in range(2))
    parts = zip(k.split([1, 20, 29], dim=1), v.split([1, 20, 29], dim=1), strict=True)
    assert relative(attend_to_parts(q, parts), sdpa(q, k, v)) < 1e-6


@every_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [4, 37, 120, 1560])
def test_a_format_gives_back_what_it_was_given_to_its_precision(kv_dtype: str, dtype: torch.dtype, tokens: int) -> None:
    frames = torch.randn(2, 3, tokens, 2, 32).to(dtype)
    for kind in (FORMATS[kv_dtype].keys, FORMATS[kv_dtype].values):
        decoded = round_trip(kind, frames)
        assert 0 < relative(decoded, frames) < MOST_ERROR[kv_dtype]
        assert torch.equal(round_trip(kind, torch.zeros_like(frames)), torch.zeros_like(frames))
        assert torch.equal(round_trip(kind, frames[:, 1:]), decoded[:, 1:]), "each frame is encoded by itself"


def test_keys_of_four_bits_bear_channels_that_are_large_in_all_tokens() -> None:
    keys = torch.randn(1, 2, 120, 2, 32)
    keys[..., 3] += 40
    per_channel, per_token = (round_trip(kind, keys) for kind in (FORMATS["int4"].keys, FORMATS["int4"].values))
    others = [channel for channel in range(32) if channel != 3]
    assert relative(per_channel[..., others], keys[..., others]) < 0.15
    assert relative(per_token[..., others], keys[..., others]) > 0.5


def test_groups_cut_a_frame_evenly() -> None:
    assert [group_of(tokens) for tokens in (4, 880, 1560, 131, 3600)] == [4, 110, 120, 131, 120]


@every_format
@pytest.mark.parametrize("window", [9, None])
def test_a_cache_takes_the_bytes_that_are_predicted(kv_dtype: str, window: int | None) -> None:
    model, settings = random_model(layers=2), config(kv_dtype, window_frames=window, sink_position="clamped")
    session = sf_core.Session.start(model, prompt(0), SIZE, settings, batch=2)
    for _ in range(16):
        session, _ = session.next_chunk()
    assert model.caches.nbytes == model.cache_bytes(settings, SIZE, 2, frames=session.frames)


def test_a_published_cache_is_as_small_as_said() -> None:
    with torch.device("meta"):
        model = sf_core.CausalWan(PUBLISHED_SIZES["1.3B"]).to(torch.bfloat16)
    gib = {
        kind: model.cache_bytes(sf_core.RolloutConfig(kv_dtype=kind), (60, 104)) / 2**30 for kind in (None, *KV_DTYPES)
    }
    assert gib == pytest.approx({None: 5.71, "fp8": 3.36, "int8": 3.36, "int4": 2.19}, abs=0.01)


@every_format
def test_a_quantised_video_is_near_the_one_in_full_precision(kv_dtype: str) -> None:
    full, quantised = run(None), run(kv_dtype)
    assert torch.equal(quantised[:, :, :2], full[:, :, :2]), "the first chunk sees no ring"
    assert 0 < relative(quantised, full) < 2 * MOST_ERROR[kv_dtype]


def test_blocks_of_any_size_give_the_same_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run("int8")
    monkeypatch.setattr(cache_shape, "BLOCK_TOKENS", 8)  # two frames
    assert relative(run("int8"), expected) < 1e-5


class LargestMade(TorchDispatchMode):
    """The largest float tensor, in numbers, that any operation makes."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.is_floating_point():
                storage = made.untyped_storage()
                if storage.data_ptr() not in given:
                    self.most = max(self.most, storage.nbytes() // made.itemsize)
        return result


@every_format
def test_no_copy_of_the_window_is_ever_in_memory(kv_dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_shape, "BLOCK_TOKENS", 8)  # two frames
    model, settings = random_model(layers=2), config(kv_dtype, chunk_frames=1, window_frames=26, sink_frames=1)
    session = sf_core.Session.start(model, prompt(0), SIZE, settings)
    for _ in range(26):
        session, _ = session.next_chunk()
    with LargestMade() as made:
        session.next_chunk()
    frame = 4 * model.arch.dim
    assert made.most < 24 * frame // 2, "far less than a layer's ring of 24 frames"
    cache = model.caches._caches[0].cache
    assert isinstance(cache, QuantisedKVCache)
    assert [buffer.numel() for buffer in cache._block] == [2 * frame, 2 * frame]


@every_format
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_chunk_takes_neither_values_nor_shapes_from_its_data(kv_dtype: str, device: str) -> None:
    """On tensors without values, and on a device that has none."""
    settings = config(kv_dtype, sink_position="clamped")
    with FakeTensorMode(allow_non_fake_inputs=True) if device == "cpu" else torch.no_grad(), torch.no_grad():
        model = random_model(layers=2).to(device)
        model.use_attention()
        cache = new_cache(model.cache_shape(settings, SIZE, 1))
        text = cache.text(b"", lambda: model.text_keys_values(torch.zeros(1, 5, 8)))
        for start in range(0, 14, 2):
            place = Place(start, 2, 0, 1)
            views, rotations = cache.open(place), model.rotations(place.positions, SIZE)
            x, timestep = torch.zeros(1, 4, 2, *SIZE, device=device), torch.zeros(1, 1, device=device)
            assert model.flow_over_cache(x, timestep, rotations, text, views).shape == x.shape
            model.write_over_cache(x, timestep, rotations, text, views)
            cache.commit(place)


@every_format
def test_attention_to_a_quantised_ring_is_compiled_whole(kv_dtype: str) -> None:
    model = random_model(layers=1)
    cache = new_cache(model.cache_shape(config(kv_dtype, window_frames=12), SIZE, 1))
    for start in range(0, 8, 2):
        for view in cache.open(Place(start, 2, 0, 1)):
            view.write(*(torch.randn(1, 8, 2, 16) for _ in range(2)))
        cache.commit(Place(start, 2, 0, 1))
    view, q = cache.open(Place(8, 2, 0, 1))[0], torch.randn(1, 8, 2, 16)
    compiled = torch.compile(lambda q: view.attend(q, sdpa), fullgraph=True, backend="aot_eager")
    assert relative(compiled(q), view.attend(q, sdpa)) < 1e-6


def test_settings_without_a_format_are_those_that_they_were() -> None:
    assert "kv_dtype" not in sf_core.RolloutConfig().as_dict()
    assert sf_core.RolloutConfig.from_dict(config("int8").as_dict()) == config("int8")
    with pytest.raises(ValueError, match="kv_dtype is 'int2'; expected None or one of fp8, int8, int4"):
        config("int2")
