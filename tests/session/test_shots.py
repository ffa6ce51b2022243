"""Shots: whatever is done to sessions and caches, the bits are those of a straight run."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

import sf_core
from sf_core.model.pins import ring_after
from sf_core.session.timeline import Timeline, parse_rows
from tests.helpers import SIZE, prompt, random_latents, random_model, relative
from tests.naive import NaiveRollout
from tests.session.test_session_properties import MODEL, Act, begin, play, straight_run

THREE_LAYERS = random_model(layers=3)


@st.composite
def rollouts(draw: st.DrawFn) -> sf_core.RolloutConfig:
    chunk, sink = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    unipc = draw(st.booleans())
    return sf_core.RolloutConfig(
        chunk_frames=chunk,
        first_chunk_frames=draw(st.sampled_from([None, 1])),
        window_frames=sink + 2 * chunk + draw(st.integers(0, 6)),
        sink_frames=sink,
        denoising_steps=(1000, 500),
        solver="unipc" if unipc else "renoise",
        solver_steps=draw(st.integers(1, 3)) if unipc else None,
        shot_offset=draw(st.integers(0, 5)),
        pin_shots=True,
    )


ACTS = ["chunk"] * 8 + ["kept", "seed", "prompt", "cut", "shot", "shot"]
ACTS += ["rewind", "drop", "drop", "fork", "switch", "save"]


@given(rollouts(), st.lists(st.tuples(st.sampled_from(ACTS), st.integers(1, 5)), min_size=20, max_size=50))
def test_any_order_of_operations_gives_what_a_straight_run_gives(
    config: sf_core.RolloutConfig, operations: list[Act]
) -> None:
    MODEL.release_cache()
    for branch in play(begin(config, 1, None), [*operations, ("drop", 1), ("chunk", 1)]):
        expected = straight_run(config, 1, None, branch.recipe)
        assert torch.equal(branch.session.latents, expected.latents)


@given(rollouts(), st.lists(st.booleans(), min_size=4, max_size=14), st.booleans())
def test_a_naive_cache_of_lists_gives_the_same_video(
    config: sf_core.RolloutConfig, shots: list[bool], with_cut: bool
) -> None:
    config = sf_core.RolloutConfig(**{**vars(config), "solver": "renoise", "solver_steps": None})
    session = sf_core.Session.start(THREE_LAYERS, prompt(0), SIZE, config, seed=3)
    naive = NaiveRollout(THREE_LAYERS, config, 1, sf_core.SeededNoise(3), prompt(0))
    for index, shot in enumerate(shots):
        if shot:
            session = session.with_shot(prompt(index))
            naive.set_prompt(prompt(index))
        if with_cut and index == 5:
            session = session.with_cut()
            naive.cut()
        naive.sample(shot)
        if index % 3 == 2:
            THREE_LAYERS.release_cache()
        session, _ = session.next_chunk()
    assert relative(session.latents, naive.latents) < 1e-5


@given(st.integers(1, 4), st.integers(0, 9), st.lists(st.booleans(), max_size=30))
def test_the_ring_holds_the_pinned_chunk_and_the_newest_frames(chunk: int, more: int, shots: list[bool]) -> None:
    ring: tuple[int, ...] = ()
    slots, pin, frame = chunk + more, None, 0
    for shot in shots:
        new = range(frame, frame + chunk)
        pin = (frame, frame + chunk) if shot else pin
        before, ring, frame = ring, ring_after(ring, new, pin, slots), frame + chunk
        pinned = {f for f in range(frame) if pin and pin[0] <= f < pin[1]}
        newest = [f for f in range(frame) if f not in pinned][-(slots - len(pinned)) or frame :]
        assert set(ring) == pinned | set(newest)
        assert len(ring) == len(set(ring)) <= slots
        assert all(old == now or now in new for old, now in zip(before, ring, strict=False))  # nothing moves


def test_the_first_chunk_begins_a_shot_by_itself() -> None:
    config = sf_core.RolloutConfig(chunk_frames=2, window_frames=8, sink_frames=2, shot_offset=3, pin_shots=True)
    session = begin(config, 1, None)
    shot, _ = session.with_shot(prompt(1)).next_chunk()
    plain, _ = session.with_prompt(prompt(1)).next_chunk()
    assert torch.equal(shot.latents, plain.latents)
    assert shot.next_chunk()[0].latents.equal(plain.next_chunk()[0].latents)
    given = begin(config, 1, random_latents(2))  # given frames are not a shot of their own
    shot, _ = given.with_shot(prompt(1)).next_chunk()
    assert not torch.equal(shot.latents, given.with_prompt(prompt(1)).next_chunk()[0].latents)


def test_the_words_that_the_model_was_trained_with_begin_a_shot_in_a_timeline() -> None:
    config = sf_core.RolloutConfig(chunk_frames=2, window_frames=8, sink_frames=2, shot_offset=3, pin_shots=True)
    words = "The scene transitions. a dog"
    timeline = Timeline(parse_rows(f"0: a cat\n4: {words}"), {"a cat": prompt(0), words: prompt(1)})
    session = begin(config, 1, None)
    while session.chunks < 5:
        session, _ = timeline.steer(session, 1, 1).next_chunk()
    codes = [block.event.shot for block in session.head.back()] if session.head else []
    assert codes == [False, False, True, False, False]  # newest first: frame 4 begins chunk 2
    plain = sf_core.RolloutConfig(**{**vars(config), "shot_offset": 0, "pin_shots": False})
    other = begin(plain, 1, None)
    while other.chunks < 5:
        other, _ = timeline.steer(other, 1, 1).next_chunk()  # without shots it is a prompt like any other
    assert not torch.equal(session.latents, other.latents)
