"""The rolling cache equals concatenate-and-slice, takes the bytes it says, and the pool lends it out fairly."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import sf_core
from sf_core.kv_cache import CachePool, CacheShape, Place, RollingKVCache
from sf_core.rope import apply_rope, rope_rotations
from sf_core.schedule import flow_schedule
from sf_core.wan import CausalWan
from tests.helpers import SIZE, prompt, random_latents, random_model, relative

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
        sink_position=draw(st.sampled_from(["absolute", "clamped"])),
        denoising_steps=draw(st.sampled_from([(1000, 500), (1000, 750, 250)])),
        context_noise=draw(st.sampled_from([0, 100])),
    )


def naive_rollout(model: CausalWan, config: sf_core.RolloutConfig, context: Tensor | None, text: Tensor, batch: int, chunks: int) -> Tensor:
    """The algorithm with a list of frames for a cache: unrotated keys, concatenated and sliced on every forward."""
    model.use_attention()
    noise, schedule = sf_core.SeededNoise(3), flow_schedule(config.shift)
    pairs = model.text_keys_values(text.expand(batch, -1, -1))
    history: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in range(model.arch.num_layers)]
    unit = (SIZE[0] // 2) * (SIZE[1] // 2)

    def turns(frames: list[int]) -> Tensor:
        return rope_rotations(frames, SIZE[0] // 2, SIZE[1] // 2, model.arch.head_dim)

    def forward(x: Tensor, start: int, timestep: float) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        new: list[tuple[Tensor, Tensor]] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            new.append((k, v))
            sink = [entry for entry in history[layer] if entry[0] < config.sink_frames]
            ring = [entry for entry in history[layer] if entry[0] >= config.sink_frames]
            if config.ring_frames is not None:
                ring = ring[len(ring) - min(len(ring), config.ring_frames) :]
            positions = [frame for frame, _, _ in sink]
            if config.sink_position == "clamped" and sink:
                oldest = ring[0][0] if ring else start
                positions = [max(oldest - config.sink_frames, 0) + j for j in range(len(sink))]
            seen = list(zip(positions, sink, strict=True)) + [(entry[0], entry) for entry in ring]
            keys = [apply_rope(entry[1], turns([position])) for position, entry in seen] + [apply_rope(k, own)]
            return model._attention(apply_rope(q, own), torch.cat(keys, 1), torch.cat([e[2] for _, e in seen] + [v], 1))

        own = turns(list(range(start, start + x.shape[2])))
        embedding, modulations = model._embed_time(torch.full((batch, 1), timestep))
        plain = torch.ones_like(own)  # the blocks themselves do not rotate: `attend` does
        tokens = model._blocks(model._embed_latents(x), modulations, plain, pairs, attend)
        return model._flow(tokens, embedding, x), new

    def write(x: Tensor, start: int, timestep: float) -> None:
        for layer, (k, v) in enumerate(forward(x, start, timestep)[1]):
            for i in range(x.shape[2]):
                part = slice(i * unit, (i + 1) * unit)
                history[layer].append((start + i, k[:, part], v[:, part]))

    made: list[Tensor] = []
    start = 0
    while context is not None and start < context.shape[2]:
        part = context[:, :, start : start + config.frames_of_block(start)]
        write(part, start, 0.0)
        made.append(part)
        start += part.shape[2]
    for chunk in range(chunks):
        steps = config.timesteps(start)
        shape = (batch, 4, config.frames_of_block(start), *SIZE)
        x = noise(chunk, 0, shape)
        for i, step in enumerate(steps):
            x0 = schedule.to_x0(x, forward(x, start, step)[0], step)
            if i + 1 < len(steps):
                x = schedule.add_noise(x0, noise(chunk, i + 1, shape), steps[i + 1])
        write(x0, start, float(config.context_noise))
        made.append(x0)
        start += x0.shape[2]
    return torch.cat(made, dim=2)


@given(configs(), st.integers(1, 2), st.integers(0, 2))
@example(sf_core.RolloutConfig(chunk_frames=3, window_frames=7, sink_frames=2, sink_position="clamped"), 2, 0)
@example(sf_core.RolloutConfig(chunk_frames=3, window_frames=5, sink_frames=2), 1, 0)
def test_the_ring_equals_concatenate_and_slice(config: sf_core.RolloutConfig, batch: int, context_blocks: int) -> None:
    frames = sum(config.frames_of_block(0 if i == 0 else 1) for i in range(context_blocks))
    context = random_latents(frames, batch) if frames else None
    session = sf_core.Session.start(MODEL, prompt(0), SIZE, config, batch=batch, noise=sf_core.SeededNoise(3))
    if context is not None:
        session = session.with_context(context)
    for _ in range(20):
        session, _ = session.next_chunk()
    naive = naive_rollout(MODEL, config, context, prompt(0), batch, 20)
    assert relative(session.latents, naive) < 2e-5


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
    return CacheShape(1, 1, 1, 4, 1, 3, sink, 6, False, 2, torch.float32, torch.device("cpu"))


def test_a_frames_place_depends_on_its_index_alone() -> None:
    shape = small_shape(sink=2)
    assert shape.kept(Place(0, 3, 0, 2)) == [(0, 0, 3)]  # two frames into the sink, one into the ring
    assert shape.kept(Place(6, 3, 0, 2)) == [(0, 6, 2), (2, 2, 1)]  # frames 6 and 7 end the ring, 8 begins it again
    assert shape.kept(Place(0, 3, 0, 2), keep_sink=True) == [(2, 2, 1)]


def test_what_is_committed_is_untouched_by_the_chunk_at_work() -> None:
    cache = RollingKVCache(small_shape())
    for start in (0, 3, 6):
        place = Place(start, 3, 0, 0)
        for view in cache.open(place)[0]:
            view[:, :3] = start + 1.0
        cache.commit(place)
    before = cache._keys[0].clone()
    cache.open(Place(9, 3, 0, 0))[0][0][:, :3] = -1.0
    assert torch.equal(cache._keys[0][:, 3:], before[:, 3:])


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
    with pytest.raises(ValueError, match="smaller window or picture, or raise the budget"), pool.lease(small_shape(), [b"a"], set()):
        pass
