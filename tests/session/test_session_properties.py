"""Whatever is done to sessions and caches, the latents are bit-equal to a straight run on a fresh model."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import sf_core
from sf_core.rollout_rules import KV_DTYPES
from sf_core.session.blocks import NOTHING
from sf_core.session.replay import replay_reach
from tests.helpers import SIZE, prompt, random_latents, random_model, sink_settings

MODEL = random_model()
OTHER_OWNER = sf_core.RolloutConfig(chunk_frames=3, window_frames=6, denoising_steps=(1000,))

# One thing that is set or done before a chunk; a session's recipe is all of them since its start.
Act = tuple[str, int]


def apply_act(session: sf_core.Session, act: Act) -> sf_core.Session:
    kind, number = act
    if kind == "chunk":
        return session.next_chunk()[0]
    if kind == "kept":
        return session.with_chunk(**session.next_chunk()[0].newest_chunk())  # as from a journal
    if kind == "seed":
        return session.with_seed(number)
    if kind == "cut":
        return session.with_cut()
    if kind == "match":
        with suppress(ValueError):  # nothing to match it to, or no room for it
            return session.with_match()
        return session
    if kind == "source":
        if session.config.schedule == "rolling" or isinstance(session.noise, sf_core.PublishedNoise):
            return session
        given = random_latents(session.config.frames_of_block(session.frames), seed=number)
        strength = 0.84 + number / 40  # a step is left, whose input context_from_last_step keeps
        return session.with_source(given, strength, ("truncated", "rescaled")[number % 2])
    if kind == "shot":
        return session.with_shot(prompt(number))
    if kind.startswith("joint") and session.config.context != "recompute":
        window = session.config.window_frames
        anew = (
            kind == "joint_sink"
            and session.config.sink_average is None
            and (window is None or window % session.config.chunk_frames == 0)
        )
        return session.with_prompt(prompt(number), recache="joint", recache_sink=anew)
    if session.config.context == "recompute":
        return session.with_prompt(prompt(number))
    sink_too = kind == "recache_sink" and session.config.sink_average is None
    return session.with_prompt(prompt(number), recache=kind != "prompt", recache_sink=sink_too)


def reencode(session: Any) -> Tensor:
    """As decoding and encoding a frame is: near what was there, and a function of what there is."""
    at = session.frames - session.config.context_frames
    return 0.9 * session.latents_between(at, at + 1)


def begin(
    config: sf_core.RolloutConfig,
    batch: int,
    context: Tensor | None,
    model: sf_core.CausalWan = MODEL,
    published: bool = False,
) -> sf_core.Session:
    """An empty session, or one of ``context``; ``published``: with the script's noise, where there is a script."""
    session = sf_core.Session.start(model, prompt(0), SIZE, config, seed=7, batch=batch, reencode=reencode)
    session = session if context is None else session.with_context(context)
    if published:
        frames = config.fitting_frames(80 * config.chunk_frames)
        with suppress(ValueError):
            session = session.with_noise(sf_core.PublishedNoise.of(session, 7, frames))
    return session


def straight_run(
    config: sf_core.RolloutConfig, batch: int, context: Tensor | None, recipe: list[Act], published: bool = False
) -> sf_core.Session:
    """The recipe from beginning to end, by a cache that is never lost, and that is on the device."""
    MODEL.release_cache()
    session = begin(replace(config, kv_offload=False), batch, context, published=published)
    for act in recipe:
        sampled = act[0] in ("chunk", "kept")
        session = apply_act(session, ("chunk", act[1]) if sampled else act)
        if sampled and session.chunks > 1:
            assert session.how.startswith("same")
    return session


class Branch:
    """A session and the recipe that leads to it."""

    def __init__(self, session: sf_core.Session, recipe: list[Act]) -> None:
        self.session, self.recipe = session, recipe

    def act(self, act: Act) -> None:
        self.session = apply_act(self.session, act)
        self.recipe = [*self.recipe, act]

    def rewind(self, chunks: int) -> None:
        chunks = min(chunks, self.session.chunks)
        self.session = self.session.rewind(chunks)
        recipe = list(self.recipe)
        for _ in range(chunks):
            while recipe.pop()[0] not in ("chunk", "kept"):
                pass
        self.recipe = recipe if chunks else self.recipe


def play(session: sf_core.Session, operations: list[Act]) -> list[Branch]:
    """All branches that the operations lead to from ``session``, whose caches come and go."""
    branches = [Branch(session, [])]
    current = branches[0]
    other = sf_core.Session.start(MODEL, prompt(9), SIZE, OTHER_OWNER)
    for kind, number in operations:
        if kind == "rewind":
            current.rewind(number)
        elif kind == "drop":
            MODEL.release_cache()
        elif kind == "fork":
            current = Branch(current.session.fork(), current.recipe)
            branches.append(current)
        elif kind == "switch":
            current = branches[number % len(branches)]
        elif kind == "other":
            other, _ = other.next_chunk()
        elif kind == "save":
            with tempfile.TemporaryDirectory() as folder:
                current.session.save(Path(folder) / "s")
                current.session = sf_core.Session.load(Path(folder) / "s", MODEL, reencode=reencode)
        else:
            current.act((kind, number))
    return branches


@st.composite
def rollouts(draw: st.DrawFn) -> sf_core.RolloutConfig:
    chunk, sink = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    first = draw(st.sampled_from([None, 1]))
    window = draw(st.one_of(st.none(), st.integers(chunk + sink, chunk + sink + 6)))
    return sf_core.RolloutConfig(
        chunk_frames=chunk,
        first_chunk_frames=first,
        window_frames=window,
        sink_frames=sink,
        **sink_settings(draw, window),
        denoising_steps=(1000, 500),
        **draw(st.sampled_from(RULES)),
    )


def of_the_cache(draw: st.DrawFn) -> dict[str, Any]:
    return {"kv_dtype": draw(st.sampled_from(FORMATS)), "kv_offload": draw(st.booleans())}


@st.composite
def averaged_sinks(draw: st.DrawFn) -> sf_core.RolloutConfig:
    chunk = draw(st.integers(1, 3))
    window = chunk * draw(st.integers(2, 4))
    settings: dict[str, Any] = {
        "chunk_frames": chunk,
        "sink_frames": chunk,
        "window_frames": window,
        "denoising_steps": (1000, 500),
    }
    kept: dict[str, Any] = {"sink_average": 0.75, **of_the_cache(draw)}
    return sf_core.RolloutConfig(**settings, **kept, **sink_settings(draw, window))


@st.composite
def rolling_schedules(draw: st.DrawFn) -> sf_core.RolloutConfig:
    chunk, sink = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    steps = draw(st.sampled_from([(1000, 500), (1000, 750, 250)]))
    return sf_core.RolloutConfig(
        schedule="rolling",
        chunk_frames=chunk,
        first_chunk_frames=draw(st.sampled_from([None, 1])),
        window_frames=len(steps) * chunk + sink + draw(st.integers(0, 6)),
        sink_frames=sink,
        denoising_steps=steps,
        **of_the_cache(draw),
    )


@st.composite
def recomputed_contexts(draw: st.DrawFn) -> sf_core.RolloutConfig:
    chunk = draw(st.integers(1, 3))
    frames = chunk * draw(st.integers(1, 3))
    settings: dict[str, Any] = {"chunk_frames": chunk, "context_frames": frames, "window_frames": frames + chunk}
    settings |= of_the_cache(draw)
    return sf_core.RolloutConfig(context="recompute", denoising_steps=(1000, 500), **settings)


@st.composite
def banks(draw: st.DrawFn) -> sf_core.RolloutConfig:
    chunk, sink = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    return sf_core.RolloutConfig(
        chunk_frames=chunk,
        window_frames=chunk + sink + draw(st.integers(0, 4)),
        sink_frames=sink,
        memory_frames=draw(st.integers(1, 3)),
        memory_interval=draw(st.integers(1, 2)),
        denoising_steps=(1000, 500),
        context_from_last_step=draw(st.booleans()),
        **of_the_cache(draw),
    )


RULES: list[dict[str, Any]] = [
    {},
    {"context_noise": 50},
    {"exact_times": True},
    {"context_from_last_step": True},
    {"kv_dtype": "int8"},
    {"kv_dtype": "int4", "context_from_last_step": True},
    {"kv_offload": True},
    {"kv_offload": True, "kv_dtype": "int8"},
]
FORMATS = [None, None, *KV_DTYPES]
moves = st.lists(
    st.tuples(
        st.sampled_from(
            ["chunk"] * 8
            + [
                "kept",
                "kept",
                "kept",
                "seed",
                "prompt",
                "recache",
                "recache_sink",
                "joint",
                "joint_sink",
                "source",
                "cut",
                "match",
                "rewind",
                "rewind",
                "drop",
                "fork",
                "switch",
                "other",
                "save",
            ]
        ),
        st.integers(1, 5),
    ),
    min_size=36,
    max_size=70,
)


@given(
    st.one_of(rollouts(), averaged_sinks(), rolling_schedules(), recomputed_contexts(), banks()),
    st.integers(1, 2),
    st.integers(0, 2),
    moves,
    st.sampled_from([None, 3]),
    st.booleans(),
)
@example(
    sf_core.RolloutConfig(
        schedule="rolling", chunk_frames=2, window_frames=9, sink_frames=2, denoising_steps=(1000, 750, 250)
    ),
    1,
    1,
    [("chunk", 1)] * 6
    + [("rewind", 2), ("seed", 3), ("chunk", 1), ("drop", 1), ("chunk", 1), ("recache", 2), ("chunk", 1), ("kept", 1)]
    + [("joint", 3), ("save", 1), ("chunk", 1), ("cut", 1), ("chunk", 1), ("fork", 1), ("prompt", 4)]
    + [("chunk", 1)] * 3
    + [("drop", 1), ("switch", 0), ("save", 1)],
    2,
    True,
)
@example(
    sf_core.RolloutConfig(
        context="recompute", chunk_frames=2, context_frames=4, window_frames=6, denoising_steps=(1000, 500)
    ),
    1,
    2,
    [("chunk", 1)] * 4
    + [("rewind", 2), ("seed", 3), ("chunk", 1), ("drop", 1), ("chunk", 1), ("prompt", 2), ("chunk", 1), ("kept", 1)]
    + [("save", 1), ("chunk", 1), ("cut", 1), ("chunk", 1), ("fork", 1), ("prompt", 4)]
    + [("chunk", 1)] * 4
    + [("drop", 1), ("switch", 0), ("save", 1), ("rewind", 3)],
    2,
    True,
)
@example(
    sf_core.RolloutConfig(chunk_frames=2, window_frames=6, sink_frames=2, sink_average=0.75),
    1,
    0,
    [("chunk", 1)] * 7
    + [("rewind", 2), ("chunk", 1), ("drop", 1), ("chunk", 1), ("recache", 2), ("chunk", 1), ("drop", 1)]
    + [("chunk", 1), ("joint", 3), ("save", 1), ("chunk", 1), ("cut", 1), ("chunk", 1), ("fork", 1)]
    + [("chunk", 1)] * 4
    + [("drop", 1), ("switch", 0)],
    2,
    True,
)
@example(
    sf_core.RolloutConfig(chunk_frames=3, window_frames=8, sink_frames=2, denoising_steps=(1000, 500)),
    1,
    0,
    [("chunk", 1)] * 12
    + [("recache", 2), ("chunk", 1), ("drop", 1), ("chunk", 1), ("recache_sink", 3)]
    + [("chunk", 1)] * 8,
    None,
    False,
)
@example(
    sf_core.RolloutConfig(chunk_frames=2, window_frames=8, sink_frames=3, sink_position="clamped"),
    1,
    1,
    [("joint", 2)]
    + [("chunk", 1)] * 6
    + [("joint", 3), ("chunk", 1), ("drop", 1), ("chunk", 1), ("joint_sink", 4), ("chunk", 1), ("drop", 1)]
    + [("chunk", 1), ("joint", 5), ("chunk", 1), ("drop", 1), ("recache", 2), ("chunk", 1), ("drop", 1)]
    + [("joint_sink", 2), ("chunk", 1), ("recache_sink", 3), ("chunk", 1), ("drop", 1)],
    None,
    False,
)
@example(
    sf_core.RolloutConfig(chunk_frames=2, window_frames=7, sink_frames=1, context_from_last_step=True),
    1,
    0,
    [("source", 1)]
    + [("chunk", 1)] * 5
    + [("source", 2), ("chunk", 1), ("source", 3), ("save", 1), ("chunk", 1), ("drop", 1), ("kept", 1), ("save", 1)]
    + [("rewind", 2), ("seed", 3), ("chunk", 1), ("kept", 1), ("save", 1), ("chunk", 1), ("drop", 1), ("chunk", 1)]
    + [("recache", 2), ("chunk", 1), ("drop", 1), ("joint", 3), ("fork", 1), ("chunk", 1), ("switch", 0)],
    2,
    False,
)
def test_any_order_of_operations_gives_what_a_straight_run_gives(
    config: sf_core.RolloutConfig,
    batch: int,
    context_blocks: int,
    operations: list[Act],
    budget: int | None,
    published: bool,
) -> None:
    frames = sum(config.frames_of_block(i) for i in range(context_blocks))
    context = random_latents(frames, batch) if frames else None
    MODEL.release_cache()
    MODEL.caches.budget_bytes = budget and budget * MODEL.cache_bytes(config, SIZE, batch, frames=200)
    for branch in play(begin(config, batch, context, published=published), [*operations, *[("chunk", 1)] * 3]):
        expected = straight_run(config, batch, context, branch.recipe, published)
        assert branch.session.frames == expected.frames
        assert torch.equal(branch.session.latents, expected.latents)
        if config.schedule == "rolling":
            branches_end = replace(branch.session, event=NOTHING).finish()[1]
            assert torch.equal(branches_end, replace(expected, event=NOTHING).finish()[1])


class CountedPasses:
    """Counts the forwards of a model: each embeds its latents once."""

    def __init__(self, model: sf_core.CausalWan) -> None:
        self.count = 0
        self.handle = model.patch_embedding.register_forward_hook(lambda *_: self._add())

    def _add(self) -> None:
        self.count += 1


@given(rollouts(), st.integers(1, 30))
def test_a_replay_takes_no_more_passes_than_its_bound(config: sf_core.RolloutConfig, chunks: int) -> None:
    model = random_model(layers=4)
    session = begin(config, 1, None, model)
    for _ in range(chunks):
        session, _ = session.next_chunk()
    model.release_cache()
    counted = CountedPasses(model)
    session.next_chunk()
    reach = replay_reach(4, config.ring_frames, config.chunk_frames)
    sink_chunks = -(-config.sink_frames // config.chunk_frames) + (config.first_chunk_frames is not None)
    bound = chunks if reach is None else min(chunks, reach + sink_chunks)
    assert counted.count - len(config.denoising_steps) <= bound


def test_a_re_roll_costs_its_steps_and_nothing_else() -> None:
    model = random_model(layers=2)
    session = begin(sf_core.RolloutConfig(window_frames=9, sink_frames=1), 1, None, model)
    for _ in range(6):
        session, _ = session.next_chunk()
    counted = CountedPasses(model)
    rolled, _ = session.rewind().with_seed(99).next_chunk()
    assert counted.count == 4
    assert rolled.how.startswith("same")
    assert not torch.equal(rolled.latents[:, :, -3:], session.latents[:, :, -3:])


class Boom(Exception):
    pass


@given(
    st.integers(0, 3),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from(
        [
            {"sink_frames": 1},
            {"sink_frames": 1, "sink_position": "clamped"},
            {"sink_frames": 2, "window_frames": 8, "sink_average": 0.75},
            {"memory_frames": 2},
            {"schedule": "rolling", "sink_frames": 1},
        ]
    ),
    st.booleans(),
)
@example(2, 0, False, {"sink_frames": 1}, True)
@example(2, 0, False, {"memory_frames": 2}, False)
@example(2, 2, False, {"schedule": "rolling", "sink_frames": 1}, False)
def test_an_exception_at_any_layer_and_step_leaves_the_next_chunk_bit_equal(
    layer: int, step: int, recache: bool, rules: dict[str, Any], offload: bool
) -> None:
    settings: dict[str, Any] = {"chunk_frames": 2, "window_frames": 7, "denoising_steps": (1000, 750, 250)}
    config = sf_core.RolloutConfig(kv_offload=offload, **(settings | rules))
    MODEL.release_cache()
    MODEL.caches.budget_bytes = None
    session = begin(config, 1, None)
    for _ in range(6):
        session, _ = session.next_chunk()
    if recache:
        session = session.with_prompt(prompt(4), recache=True)
    seen = 0

    def fail(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == step + 1:
            raise Boom

    handle = MODEL.blocks[layer].self_attn.v.register_forward_hook(fail)
    try:
        with contextlib.suppress(Boom):  # a rolling schedule has fewer passes
            session.next_chunk()
    finally:
        handle.remove()
    _, latents = session.next_chunk()
    MODEL.release_cache()
    assert torch.equal(latents, session.next_chunk()[1])


def test_an_exception_inside_a_commit_leaves_the_next_chunk_bit_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    from sf_core.model.kv_cache import RollingKVCache

    session = begin(sf_core.RolloutConfig(chunk_frames=2, window_frames=7), 1, None)
    for _ in range(6):
        session, _ = session.next_chunk()
    whole = RollingKVCache.commit

    def half(self: RollingKVCache, *args: object) -> None:
        self._keys[0].fill_(5.0)
        raise Boom

    monkeypatch.setattr(RollingKVCache, "commit", half)
    with pytest.raises(Boom):
        session.next_chunk()
    monkeypatch.setattr(RollingKVCache, "commit", whole)
    _, latents = session.next_chunk()
    MODEL.release_cache()
    assert torch.equal(latents, session.next_chunk()[1])


def test_the_same_latents_under_another_prompt_are_another_past() -> None:
    config = sf_core.RolloutConfig(chunk_frames=2, window_frames=7)
    context = random_latents(4)
    first, second = (sf_core.Session.start(MODEL, prompt(i), SIZE, config).with_context(context) for i in (1, 2))
    # the context was passed under the prompt of its session; only the next chunk's prompt is the same in both
    first, second = first.with_prompt(prompt(3)), second.with_prompt(prompt(3))
    MODEL.release_cache()
    first.next_chunk()
    _, after_first = second.next_chunk()
    MODEL.release_cache()
    assert torch.equal(after_first, second.next_chunk()[1])


CHANGED = ["self_attn.v", "self_attn.norm_k", "cross_attn.k", "cross_attn.v", "cross_attn.norm_k", "ffn.0"]


@pytest.mark.parametrize("layer", CHANGED)
@pytest.mark.parametrize("anew", [False, True], ids=["the same session", "a new session of the same prompt"])
def test_weights_changed_in_place_are_noticed(layer: str, anew: bool) -> None:
    """A LoRA switched on or off is such a change: neither the past's nor the prompt's keys and values may stay."""
    model = random_model(layers=2)
    config = sf_core.RolloutConfig(chunk_frames=2, window_frames=7)
    session = begin(config, 1, None, model)
    for _ in range(3):
        session, _ = session.next_chunk()
    model.blocks[0].get_submodule(layer).weight.mul_(1.5)
    session = sf_core.Session.start(model, prompt(0), SIZE, config, seed=8) if anew else session
    _, latents = session.next_chunk()
    model.release_cache()
    assert torch.equal(latents, session.next_chunk()[1])


def test_the_prompts_keys_and_values_are_made_anew_when_the_embedding_of_text_changes() -> None:
    model = random_model(layers=2)
    session = begin(sf_core.RolloutConfig(chunk_frames=2, window_frames=7), 1, None, model)
    session, before = session.next_chunk()
    model.text_embedding[0].weight.mul_(1.5)
    _, latents = session.rewind().next_chunk()
    model.release_cache()
    assert torch.equal(latents, session.rewind().next_chunk()[1])
    assert not torch.equal(latents, before)


def test_a_new_thread_computes_what_the_main_thread_does() -> None:
    """Its very first operation is a matrix product, which would be cut for all cores and round otherwise."""
    code = (
        "import torch, threading; torch.set_num_threads(1)\n"
        "from tests.helpers import *; import sf_core\n"
        "model, text = random_model(), prompt(0)\n"
        "session = sf_core.Session.start(model, text, SIZE, noise=sf_core.SeededNoise(0)); made = []\n"
        "thread = threading.Thread(target=lambda: made.append(session.next_chunk()[1]))\n"
        "thread.start(); thread.join()\n"
        "model.release_cache()\n"
        "assert torch.equal(made[0], session.next_chunk()[1])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_two_threads_on_one_model_do_not_mix() -> None:
    config = sf_core.RolloutConfig(chunk_frames=2, window_frames=5, denoising_steps=(1000, 500))
    MODEL.release_cache()
    MODEL.caches.budget_bytes = None

    def run(seed: int, into: dict[int, Tensor]) -> None:
        session = sf_core.Session.start(MODEL, prompt(seed), SIZE, config, seed=seed)
        for _ in range(20):
            session, _ = session.next_chunk()
        into[seed] = session.latents

    alone: dict[int, Tensor] = {}
    together: dict[int, Tensor] = {}
    for seed in (1, 2):
        run(seed, alone)
    threads = [threading.Thread(target=run, args=(seed, together)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(alone[seed], together[seed]) for seed in (1, 2))
