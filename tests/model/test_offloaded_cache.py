"""A cache in host memory: the same bits, two layers on the device, each copied there before it is needed."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sf_core
from sf_core.model import attention_parts, cache_pool, kv_cache
from sf_core.model.architecture import PUBLISHED_SIZES
from sf_core.model.attention import sdpa
from sf_core.model.cache_storage import DeviceStorage, HostStorage
from sf_core.model.kv_cache import RollingKVCache
from sf_core.model.pinned_slabs import LARGEST, Slabs, slabs_for
from sf_core.model.place import Place
from sf_core.model.quantised_cache import new_cache
from sf_core.model.wide_views import open_in_flight, open_wide
from tests.helpers import SIZE, prompt, random_model
from tests.session.test_rules import RULES, config, run
from tests.session.test_session_properties import reencode

every_rule = pytest.mark.parametrize("rule", [*sorted(RULES), "plain"])
RULES_AND_PLAIN = {**RULES, "plain": {"window_frames": 7, "sink_frames": 1}}


def settings(rule: str, **more: Any) -> sf_core.RolloutConfig:
    given = config(rule) if rule in RULES else sf_core.RolloutConfig(chunk_frames=2, denoising_steps=(1000, 500))
    return replace(given, **(RULES_AND_PLAIN[rule] | more))


def video(rule: str, model: sf_core.CausalWan, chunks: int = 8, **more: Any) -> sf_core.Session:
    session = sf_core.Session.start(model, prompt(0), SIZE, settings(rule, **more), batch=2, reencode=reencode)
    return run(session, chunks)


@every_rule
def test_a_video_is_the_same_to_the_bit(rule: str) -> None:
    plain, offloaded = (video(rule, random_model(layers=3), kv_offload=offload) for offload in (False, True))
    assert torch.equal(offloaded.latents, plain.latents)


@every_rule
def test_it_takes_the_bytes_that_are_planned(rule: str) -> None:
    model = random_model(layers=3)
    session = video(rule, model, chunks=14, kv_offload=True)
    cache = model.caches._caches[0].cache
    assert (cache.nbytes, cache.host_nbytes) == (
        cache.shape.nbytes(session.frames),
        cache.shape.host_bytes(session.frames),
    )


GPU = torch.device("meta")  # another device than the host: torch refuses to compute with tensors of both


class CopiesToTheHost(TorchDispatchMode):
    """Lets tensors without values be copied to the host, which then keeps its own."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and args[1].device == GPU and args[0].device != GPU:
            assert args[0].shape == args[1].shape
            return args[0]
        return func(*args, **(kwargs or {}))


def pass_over(cache: RollingKVCache, views: Any) -> None:
    """What a pass asks of a cache, layer by layer: a frame's keys and values are 4 tokens of 2 heads."""
    for layer in range(cache.shape.layers):
        q, keys, values = (torch.zeros(1, 8, 2, 16, device=cache.shape.device) for _ in range(3))
        view = views[layer]
        view.write(keys, values)
        assert view.attend(q, sdpa).device == cache.shape.device


@pytest.mark.parametrize(
    "rule", ["plain", "clamped average", "bank", "int8, clamped average", "fp8, bank and last step"]
)
def test_on_a_gpu_only_two_layers_are_on_the_gpu(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = random_model(layers=3).cache_shape(settings(rule, kv_offload=True), SIZE, 1)
    monkeypatch.setattr(attention_parts, "part_kernel", lambda q: attention_parts.by_products)
    with CopiesToTheHost(), torch.no_grad():
        cache = new_cache(replace(shape, device=GPU))
        text = torch.zeros(1, shape.text_len, 2, 16, device=GPU)
        cache.text(b"", lambda: [(text, text)] * 3)
        for start in range(0, 14, 2):
            place = Place(start, 2, 0, shape.sink_frames)
            pass_over(cache, open_in_flight(cache, place))
            views = open_wide(cache, place, bank_frame=0 if shape.bank else None)
            pass_over(cache, views)
            views.close()
        assert {tensor.device for tensor in cache._working()} == {GPU}
        assert {tensor.device.type for tensor in cache._held()} == {"cpu"}


def test_a_published_cache_leaves_the_gpu_room() -> None:
    with torch.device("meta"):
        model = sf_core.CausalWan(PUBLISHED_SIZES["1.3B"]).to(torch.bfloat16)
    gib = {}
    for kind in (None, "int8", "int4"):
        shape = model.cache_shape(sf_core.RolloutConfig(kv_dtype=kind, kv_offload=True), (60, 104), 1)
        gib[kind] = shape.nbytes() / 2**30, shape.host_bytes() / 2**30, shape.pinned_bytes() / 2**30
    assert gib[None] == pytest.approx((0.46, 4.82, 5.0), abs=0.01)
    assert gib["int8"] == pytest.approx((0.32, 2.45, 2.5), abs=0.01)
    assert gib["int4"] == pytest.approx((0.24, 1.28, 1.38), abs=0.01)


def test_a_layer_comes_while_the_one_before_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the copies, which is that of a GPU's queues: layer 1 is asked for before layer 0 is computed."""
    done: list[str] = []
    shape = random_model(layers=3).cache_shape(settings("plain", kv_offload=True), SIZE, 1)
    cache = new_cache(shape)

    def logged(name: str) -> None:
        method = getattr(cache, name)

        def call(layer: int, *args: Any) -> None:
            done.append(f"{name} {layer}")
            method(layer, *args)

        monkeypatch.setattr(cache, name, call)

    logged("load")
    logged("store")
    for place in (Place(0, 2, 0, 1), Place(2, 2, 0, 1)):
        done.clear()
        views = open_wide(cache, place)
        for layer in range(3):
            view = views[layer]
            done.append(f"compute {layer}")
            view.write(*(torch.randn(1, 8, 2, 16) for _ in range(2)))
        views.close()
        assert done == [
            *("load 0", "load 1", "compute 0", "store 0", "load 2", "compute 1", "store 1", "compute 2", "store 2")
        ]
    done.clear()
    views = open_in_flight(cache, Place(4, 2, 0, 1))
    for step in range(2):
        for layer in range(3):
            views[layer]
            done.append(f"compute {step} {layer}")
    assert done == [
        *("load 0", "load 1", "compute 0 0", "load 2", "compute 0 1", "load 0", "compute 0 2"),
        *("load 1", "compute 1 0", "load 2", "compute 1 1", "load 0", "compute 1 2"),
    ]


def test_where_the_system_pins_no_memory_copies_are_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    zeros = torch.zeros

    def refusing(*args: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        asked.append(pin_memory)
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return zeros(*args, **options)

    storage = HostStorage(torch.device("cpu"))
    storage._stream = object()  # type: ignore[assignment]
    monkeypatch.setattr(torch, "zeros", refusing)
    storage.reserve(2, [12])
    first, second = (storage.new((2, 3), torch.float16) for _ in range(2))
    assert asked == [True, False], "one slab holds both"
    first.fill_(1)
    assert second.tolist() == [[0] * 3] * 2


class PinnedMemory:
    """As torch's allocator: it rounds up to powers of two, and keeps what is freed until it is emptied."""

    def __init__(self) -> None:
        self.pieces: list[weakref.ref[Any]] = []
        self.nbytes = 0

    def new(self, nbytes: int) -> Tensor:
        slab = torch.zeros(1 << (nbytes - 1).bit_length(), dtype=torch.uint8)
        self.pieces.append(weakref.ref(slab.untyped_storage()))
        self.nbytes += slab.nbytes
        return slab[:nbytes]

    def empty(self) -> None:
        held = [(piece, piece()) for piece in self.pieces]
        self.pieces = [piece for piece, storage in held if storage is not None]
        self.nbytes = sum(storage.nbytes() for _, storage in held if storage is not None)


class Pinning(HostStorage):
    """Host memory of a GPU without the GPU."""

    def __init__(self, memory: PinnedMemory) -> None:
        super().__init__(torch.device("cpu"))
        self._stream = object()  # type: ignore[assignment]
        self._slabs, self.memory = Slabs(memory.new), memory

    def trim(self) -> None:
        self.memory.empty()

    beside_the_pass, mark = DeviceStorage.beside_the_pass, DeviceStorage.mark
    wait_for, lend, finish = DeviceStorage.wait_for, DeviceStorage.lend, DeviceStorage.finish


@pytest.mark.parametrize("rule", [*sorted(RULES_AND_PLAIN), "unbounded", "unbounded int4"])
def test_pinned_memory_is_what_is_said_also_when_it_has_grown_and_all_is_freed(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = PinnedMemory()
    more: dict[str, Any] = {"window_frames": None, "sink_frames": 1} if rule.startswith("unbounded") else {}
    more |= {"kv_dtype": "int4"} if rule == "unbounded int4" else {}
    name = "plain" if more else rule
    plain = video(name, random_model(layers=3), chunks=14, **more)
    monkeypatch.setattr(kv_cache, "storage_of", lambda *_: Pinning(memory))
    monkeypatch.setattr(cache_pool, "free_pinned_memory", memory.empty)
    model = random_model(layers=3)
    session = video(name, model, chunks=14, kv_offload=True, **more)
    assert torch.equal(session.latents, plain.latents)
    shape = model.caches._caches[0].cache.shape
    assert memory.nbytes == shape.pinned_bytes(session.frames)
    assert (shape.pinned_bytes(session.frames) > shape.pinned_bytes()) == (shape.ring_frames is None), "it has grown"
    model.release_cache()
    assert memory.nbytes == 0


@given(st.integers(1, 240), st.integers(1, 2**36))
def test_slabs_hold_all_buffers_and_lose_little(count: int, unit: int) -> None:
    slabs = slabs_for(count, unit)
    assert sum(units for _, units in slabs) == count
    assert all(size & (size - 1) == 0 and size >= units * unit for size, units in slabs)
    total = sum(size for size, _ in slabs)
    assert total <= count * (1 << (unit - 1).bit_length()), "never more than without slabs"
    if count >= 30:
        assert total < 1.1 * count * unit
    assert all(size <= LARGEST or units <= 32 for size, units in slabs)


@pytest.mark.parametrize("offload", [False, True])
def test_a_joint_recache_averages_nothing_into_the_sink(offload: bool) -> None:
    """It passes chunks again, and nothing leaves the window for it."""
    model = random_model(layers=3)
    session = video("average", model, kv_offload=offload)
    cache = model.caches._caches[0].cache
    means = [mean.clone() for mean in cache._sink_values]
    session.with_prompt(prompt(1), recache="joint").next_chunk()
    assert model.caches._caches[0].cache is cache
    assert all(torch.equal(*pair) for pair in zip(means, cache._sink_values, strict=True))
    session.next_chunk()
    assert not any(torch.equal(*pair) for pair in zip(means, cache._sink_values, strict=True)), "a chunk does"


class Marked(HostStorage):
    """Storage whose copies are marked and waited for by number."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.marks, self.waited = 0, set[int]()

    def mark(self) -> Any:
        self.marks += 1
        return self.marks

    def wait_for(self, mark: Any) -> None:
        self.waited.add(mark)


def test_no_layer_is_computed_before_its_copy_is_waited_for() -> None:
    cache = new_cache(random_model(layers=3).cache_shape(settings("plain", kv_offload=True), SIZE, 1))
    cache.storage = storage = Marked()
    views = open_wide(cache, Place(0, 2, 0, 1))
    for layer in range(3):
        views[layer]
        assert storage.waited == set(range(1, layer + 2)), "the first copy is the first layer's, and so on"
