"""The rolling cache equals concatenate-and-slice, takes the bytes it says, and the pool lends it out fairly."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import sf_core
from sf_core.model.cache_pool import CachePool
from sf_core.model.cache_shape import CacheShape
from sf_core.model.kv_cache import RollingKVCache
from sf_core.model.place import Leaving, Place
from sf_core.model.sink import SinkRule
from tests.helpers import SIZE, prompt, random_latents, random_model, relative, sink_settings
from tests.naive import NaiveRollout

MODEL = random_model()


@st.composite
def configs(draw: st.DrawFn) -> sf_core.RolloutConfig:
    chunk = draw(st.integers(1, 4))
    sink = draw(st.integers(0, 5))
    first = draw(st.sampled_from([None, 1, 2, 5]))
    needed = max(chunk + sink, first or 0)
    window = draw(st.one_of(st.none(), st.integers(needed, needed + 9)))
    return sf_core.RolloutConfig(
        chunk_frames=chunk,
        first_chunk_frames=first,
        window_frames=window,
        sink_frames=sink,
        **sink_settings(draw, window),
        denoising_steps=draw(st.sampled_from([(1000, 500), (1000, 750, 250)])),
        context_noise=draw(st.sampled_from([0, 100])),
    )


@given(configs(), st.integers(1, 2), st.integers(0, 2))
@example(sf_core.RolloutConfig(chunk_frames=3, window_frames=7, sink_frames=2, sink_position="clamped"), 2, 0)
@example(sf_core.RolloutConfig(chunk_frames=3, window_frames=5, sink_frames=2), 1, 0)
@example(sf_core.RolloutConfig(chunk_frames=2, first_chunk_frames=5, window_frames=5, sink_frames=1), 1, 0)
def test_the_ring_equals_concatenate_and_slice(config: sf_core.RolloutConfig, batch: int, context_blocks: int) -> None:
    frames = sum(config.frames_of_block(0 if i == 0 else 1) for i in range(context_blocks))
    context = random_latents(frames, batch) if frames else None
    session = sf_core.Session.start(MODEL, prompt(0), SIZE, config, batch=batch, noise=sf_core.SeededNoise(3))
    if context is not None:
        session = session.with_context(context)
    chunks = 2 + 2 * (config.window_frames or 6) // config.chunk_frames  # twice round the ring
    for _ in range(chunks):
        session, _ = session.next_chunk()
    naive = NaiveRollout(MODEL, config, batch, sf_core.SeededNoise(3), prompt(0))
    naive.give(context)
    for _ in range(chunks):
        naive.sample()
    assert relative(session.latents, naive.latents) < 2e-5


@pytest.mark.parametrize("position", ["absolute", "clamped"])
@pytest.mark.parametrize(("chunk", "chunks"), [(1, 2), (2, 3), (3, 2), (2, 5)])
def test_an_averaged_sink_equals_an_average_of_unrotated_keys(position: str, chunk: int, chunks: int) -> None:
    """Also where the window is sink and chunk alone, so that each chunk leaves it at once."""
    config = sf_core.RolloutConfig(
        chunk_frames=chunk,
        sink_frames=chunk,
        window_frames=chunks * chunk,
        sink_position=position,
        sink_average=0.8,
        denoising_steps=(1000, 500),
    )
    session = sf_core.Session.start(MODEL, prompt(0), SIZE, config, noise=sf_core.SeededNoise(3))
    naive = NaiveRollout(MODEL, config, 1, sf_core.SeededNoise(3), prompt(0))
    for number in range(9):
        if number == 6:
            session = session.with_cut()
            naive.cut()
        session, _ = session.next_chunk()
        naive.sample()
    assert relative(session.latents, naive.latents) < 2e-5


acts = st.lists(
    st.tuples(st.integers(1, 11), st.sampled_from(["prompt", "recache", "recache_sink", "cut"])), max_size=4
)


@given(configs(), acts)
@example(sf_core.RolloutConfig(chunk_frames=3, window_frames=9, sink_frames=1), [(2, "recache"), (8, "recache_sink")])
@example(
    sf_core.RolloutConfig(chunk_frames=2, window_frames=9, sink_frames=3), [(2, "recache"), (3, "cut"), (6, "recache")]
)
def test_switches_recaches_and_cuts_equal_concatenate_and_slice(
    config: sf_core.RolloutConfig, events: list[tuple[int, str]]
) -> None:
    session = sf_core.Session.start(MODEL, prompt(0), SIZE, config, noise=sf_core.SeededNoise(3))
    naive = NaiveRollout(MODEL, config, 1, sf_core.SeededNoise(3), prompt(0))
    planned = dict(events)
    for chunk in range(12):
        kind = planned.get(chunk)
        if kind == "cut":
            session = session.with_cut()
            naive.cut()
        elif kind is not None:
            session = session.with_prompt(prompt(chunk), recache=kind == "recache", recache_sink=kind == "recache_sink")
            naive.switch(prompt(chunk), recache=kind != "prompt", with_sink=kind == "recache_sink")
        session, _ = session.next_chunk()
        naive.sample()
    assert relative(session.latents, naive.latents) < 2e-5


@given(configs(), st.integers(1, 2))
def test_cache_bytes_are_the_bytes_allocated(config: sf_core.RolloutConfig, batch: int) -> None:
    model = random_model(layers=2)
    assert model.caches.nbytes == 0
    session = sf_core.Session.start(model, prompt(0), SIZE, config, batch=batch)
    for _ in range(12):
        session, _ = session.next_chunk()
    assert model.caches.nbytes == model.cache_bytes(config, SIZE, batch, frames=session.frames)
    if config.window_frames is not None:
        assert model.caches.nbytes == model.cache_bytes(config, SIZE, batch)
    model.release_cache()
    assert model.caches.nbytes == 0


def small_shape(sink: int = 0) -> CacheShape:
    return CacheShape(1, 1, 1, 4, 1, 3, sink, 6, SinkRule(), 2, torch.float32, torch.device("cpu"))


def test_a_frames_place_depends_on_its_index_alone() -> None:
    shape = small_shape(sink=2)
    assert shape.committed_runs(Place(0, 3, 0, 2)) == [(0, 0, 3)]  # two frames into the sink, one into the ring
    assert shape.committed_runs(Place(6, 3, 0, 2)) == [
        (0, 6, 2),
        (2, 2, 1),
    ]  # frames 6 and 7 end the ring, 8 begins it again
    assert shape.committed_runs(Place(0, 3, 0, 2), keep_sink=True) == [(2, 2, 1)]


def test_what_is_committed_is_untouched_by_the_chunk_at_work() -> None:
    cache = RollingKVCache(small_shape())
    for start in (0, 3, 6):
        place = Place(start, 3, 0, 0)
        for view in cache.open(place)[0]:
            view[:, :3] = start + 1.0
        cache.commit(place)
    keys = cache.open(Place(9, 3, 0, 0))[0][0]  # of the chunk at work, then of what is committed
    before = keys[:, 3:].clone()
    assert before.any()
    keys[:, :3] = -1.0
    assert torch.equal(cache.open(Place(9, 3, 0, 0))[0][0][:, 3:], before)


def test_a_lease_waits_while_the_only_cache_is_at_work() -> None:
    pool, order = CachePool(), []
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with pool.lease(small_shape(), [b"a"], set()) as (live, _):
            inside.set()
            go_on.wait(10)
            live.key = b"a"
            order.append("first")

    def second() -> None:
        inside.wait(10)
        with pool.lease(small_shape(), [b"a"], set()) as (_, how):
            order.append(how)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "same"]


def test_a_budget_makes_room_for_a_branch_and_drops_the_oldest() -> None:
    one = small_shape().nbytes()
    pool = CachePool(budget_bytes=2 * one)
    for name in (b"a", b"b", b"c"):
        with pool.lease(small_shape(), [name], set()) as (live, how):
            assert how == "empty"
            live.key, live.tip = name, name
    with pool.lease(small_shape(), [b"a"], set()) as (_, how):
        assert how == "empty"  # a was the oldest and gave way to c
    pool.release()
    with pool.lease(small_shape(), [b"x"], set()) as (live, _):
        live.key, live.tip = b"x", b"x"
    with pool.lease(small_shape(), [b"x"], {b"other"}) as (_, how):
        assert how == "copy"


def test_a_budget_too_small_for_one_cache_says_what_would_help() -> None:
    pool = CachePool(budget_bytes=10)
    with (
        pytest.raises(ValueError, match="smaller window or picture, or raise the budget"),
        pool.lease(small_shape(), [b"a"], set()),
    ):
        pass


@pytest.mark.parametrize("budget", [None, 500])
def test_an_old_cache_is_gone_before_one_of_another_shape_is_made(
    budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without a garbage collection."""
    pool, alive = CachePool(budget), []

    def made(cache: RollingKVCache, shape: CacheShape) -> None:
        alive.append([old() for old in caches if old() is not None])
        caches.append(weakref.ref(cache))
        begin(cache, shape)

    caches: list[weakref.ref[RollingKVCache]] = []
    begin = RollingKVCache.__init__
    monkeypatch.setattr(RollingKVCache, "__init__", made)
    gc.disable()
    try:
        for sink in (0, 1, 2, 0):
            with pool.lease(small_shape(sink), [], set()):
                pass
    finally:
        gc.enable()
    assert alive == [[], [], [], []]


def test_room_is_made_for_a_shape_before_it_is_planned() -> None:
    pool = CachePool()
    with pool.lease(small_shape(), [], set()):
        pool.make_way(small_shape(1))
        assert pool.nbytes, "a leased cache stays"
    pool.make_way(small_shape())
    assert pool.nbytes
    pool.make_way(small_shape(1))
    assert pool.nbytes == 0


def test_a_chunk_that_leaves_an_aligned_ring_is_one_run() -> None:
    shape = replace(small_shape(sink=3), sink_average=0.9)
    assert shape.leaving(Place(3, 3, 0, 3)) == []
    assert shape.leaving(Place(9, 3, 0, 3)) == [Leaving(0, 3, 0, -3, 3)]
    assert shape.leaving(Place(12, 3, 0, 3)) == [Leaving(0, 6, 0, -6, 3)]
    assert replace(shape, ring_frames=0).leaving(Place(6, 3, 0, 3)) == [Leaving(0, -1, 0, -6, 3)]
    assert small_shape(sink=3).leaving(Place(9, 3, 0, 3)) == [], "a sink that stays averages nothing"
