"""Drift: what is measured of a chunk, what it is compared with, and what is done about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import sf_core
from sf_core import tiny
from sf_core.session.drift import ANCHOR_CHUNKS, THRESHOLD, ChunkDrift, anchor_blocks, drift_of
from sf_core.session.drift_guard import DriftGuard
from sf_core.session.saved_record import events_in
from sf_core.session.session_file import record_of
from sf_core.tiny.world import prompts
from tests.helpers import SIZE, prompt, random_model

MODEL = random_model(layers=1)


def begin(chunks: int = 0, **changes: Any) -> sf_core.Session:
    config = sf_core.RolloutConfig(**{"window_frames": 9, "denoising_steps": (1000,), **changes})
    session = sf_core.Session.start(MODEL, prompt(0), SIZE, config, seed=7)
    return longer(session, chunks)


def longer(session: sf_core.Session, chunks: int) -> sf_core.Session:
    for _ in range(chunks):
        session = session.next_chunk()[0]
    return session


def holding(*chunks: Tensor) -> sf_core.Session:
    """A session whose chunks are these latents."""
    session = begin()
    for latents in chunks:
        session = session.with_chunk(latents)
    return session


def noise(seed: int, frames: int = 3) -> Tensor:
    return torch.randn(1, 4, frames, *SIZE, generator=torch.Generator().manual_seed(seed))


def normal(seed: int) -> Tensor:
    """A chunk of which each channel has mean 0 and standard deviation 1."""
    latents = noise(seed)
    latents = latents - latents.mean(dim=(2, 3, 4), keepdim=True)
    return latents / latents.square().mean(dim=(2, 3, 4), keepdim=True).sqrt()


def test_a_shift_of_the_mean_and_a_wider_spread_are_measured_in_units_of_the_spread() -> None:
    session = holding(normal(0), normal(1), normal(2), normal(3) + 0.3, normal(4) * 1.4, 0.4 + 1.3 * normal(5))
    drifts = [one.drift for one in drift_of(session)]
    assert drifts == pytest.approx([0, 0, 0, 0.3, 0.4, 0.5], abs=1e-5)
    measures = drift_of(session)
    assert measures[3].mean == pytest.approx(0.3, abs=1e-5)
    assert measures[4].spread == pytest.approx(1.4, abs=1e-5)


def test_sharpness_motion_and_similarity_are_what_they_say() -> None:
    still = normal(0)[:, :, :1].expand(-1, -1, 3, -1, -1)
    session = holding(still, still, still, still, -still)
    measures = drift_of(session)
    assert measures[3].motion == 0
    assert measures[3].similarity == pytest.approx(1, abs=1e-5)
    assert measures[4].similarity == pytest.approx(-1, abs=0.05)
    assert measures[4].motion > 0.5  # from the frame before it
    smooth = torch.linspace(-1, 1, SIZE[1]).expand(1, 4, 3, *SIZE)
    assert drift_of(holding(smooth))[0].sharpness < 0.4 < 0.75 < measures[0].sharpness


def test_of_a_long_session_some_chunks_are_measured_and_the_newest_is_one() -> None:
    session = begin(11)
    measured = drift_of(session)
    assert [one.chunk for one in drift_of(session, 4)] == [1, 4, 7, 10]
    assert drift_of(session, 4) == [measured[chunk] for chunk in (1, 4, 7, 10)]
    assert drift_of(session, 11) == drift_of(session, 100) == measured
    assert drift_of(begin(), 4) == []


def test_a_batch_shows_the_video_that_drifts_most() -> None:
    session = sf_core.Session.start(MODEL, prompt(0), SIZE, begin().config, batch=2)
    for moved in (0.0, 0.0, 0.0, 0.7):
        session = session.with_chunk(torch.cat([normal(0), normal(1) + moved]))
    assert drift_of(session)[3].drift == pytest.approx(0.7, abs=1e-5)


def test_what_a_chunk_is_compared_with_begins_anew_at_a_prompt_a_cut_and_a_shot() -> None:
    session = begin(5)
    first = anchor_blocks(session.blocks[4])
    assert first == tuple(session.blocks[:ANCHOR_CHUNKS])
    prompted = longer(session.with_prompt(prompt(1)), 2)
    assert anchor_blocks(prompted.blocks[6]) == tuple(prompted.blocks[5:7])
    cut = longer(prompted.with_cut(), 4)
    assert anchor_blocks(cut.blocks[-1]) == tuple(cut.blocks[7:10])
    shots = longer(begin(2, shot_offset=8, pin_shots=True, window_frames=12).with_shot(prompt(0)), 1)
    assert anchor_blocks(shots.blocks[-1]) == (shots.blocks[-1],)


def test_a_chunk_that_is_matched_has_mean_and_spread_of_the_first_chunks_and_the_next_one_follows_it() -> None:
    session = begin(5)
    plain, matched = session.next_chunk()[0], session.with_match().next_chunk()[0]
    assert drift_of(matched)[5].drift < 1e-6 < drift_of(plain)[5].drift
    assert not torch.equal(plain.next_chunk()[1], matched.next_chunk()[1])
    assert matched.event == plain.event
    assert plain.next_chunk()[0].chunks == 7


def test_a_match_is_part_of_the_record_rewound_saved_and_made_again(tmp_path: Path) -> None:
    session = begin(4)
    matched, latents = session.with_match().next_chunk()
    assert torch.equal(matched.rewind(1).next_chunk()[1], latents)
    assert session.next_key != session.with_match().next_key
    longer(matched, 2).save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        record = json.loads(file.metadata()["sf.session"])
    assert record["version"] == 4
    assert "colours matched at chunk 4" in events_in(record)
    again = sf_core.Session.load(tmp_path / "a.safetensors", random_model(layers=1))
    assert torch.equal(again.next_chunk()[1], longer(matched, 2).next_chunk()[1])
    assert torch.equal(again.rewind(3).next_chunk()[1], latents)
    assert record_of(session)[0]["version"] == 1  # older versions read what has no match


def test_what_is_set_after_a_match_and_begins_a_stretch_ends_it() -> None:
    session = begin(4).with_match()
    assert not session.with_prompt(prompt(1)).event.match
    assert session.with_prompt(prompt(0), recache=True).event.match
    assert not session.with_cut().event.match
    kept = session.with_prompt(prompt(0), recache=True).next_chunk()[0]
    assert drift_of(kept)[4].drift < 1e-6


@pytest.mark.parametrize(
    ("session", "why"),
    [
        (begin(), "begins the video"),
        (begin(1).with_cut(), "a scene"),
        (begin(1).with_prompt(prompt(1)), "a prompt"),
        (begin(1, context_from_last_step=True), "recache under the prompt instead"),
    ],
)
def test_a_match_of_nothing_or_without_effect_is_refused(session: sf_core.Session, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        session.with_match()


class Drifting(DriftGuard):
    """A guard that is told what to measure."""

    def measured(self, session: sf_core.Session, drift: float) -> sf_core.Session:
        self.boundary(session)
        self._measured, self.newest = session.head, ChunkDrift(0, drift, 0, 1, 0, 0, 1)
        return self.boundary(session)


def test_a_guard_acts_above_its_threshold_only() -> None:
    session = begin(4)
    for action, field in (("match", "match"), ("recache", "recache")):
        guard = Drifting(session.config, action, 0.5)  # type: ignore[arg-type]
        assert guard.measured(session, 0.5).event == session.event
        assert getattr(guard.measured(session, 0.51).event, field)
    for action in ("measure", "warn"):
        guard = Drifting(session.config, action, 0.5)  # type: ignore[arg-type]
        assert guard.measured(session, 9).event == session.event
        assert guard.is_over


def test_a_recache_waits_until_the_window_has_gone_by_and_leaves_a_users_prompt_alone() -> None:
    session = begin(4)
    guard = Drifting(session.config, "recache", 0.5)
    recached = guard.measured(session, 1)
    assert recached.event.recache
    assert guard.acted
    assert not guard.measured(longer(recached, 2), 1).event.recache
    assert not guard.acted
    assert guard.measured(longer(recached, 3), 1).event.recache
    asked = session.with_prompt(prompt(1), words="other")
    assert Drifting(session.config, "recache", 0.0).boundary(asked) is asked


@pytest.mark.parametrize("action", ["match", "recache"])
def test_a_guard_of_a_continued_or_rewound_video_decides_as_that_of_one_run(action: str) -> None:
    def guard() -> DriftGuard:
        return DriftGuard(begin().config, action, 0.0)  # type: ignore[arg-type]

    first = guard()
    whole = guarded(begin(), first, 9)
    events = [block.event for block in whole.blocks]
    assert any(event.match or event.recache for event in events)
    parts = begin()
    for chunks in (5, 1, 3):
        parts = guarded(parts, guard(), chunks)
    assert [block.event for block in parts.blocks] == events
    assert torch.equal(parts.latents, whole.latents)
    again = whole.rewind(3)
    again = guarded(again.with_prompt(again.prompt.text), first, 3)  # as a steered run sets its prompt anew
    assert [block.event for block in again.blocks] == events
    assert len({id(block.prompt) for block in whole.blocks}) == 1  # embeddings are kept once


def test_a_guard_says_that_it_acts_only_where_it_does() -> None:
    session, guard = begin(2), DriftGuard(begin().config, "match", 0.01)
    assert not guard.boundary(session).event.match  # the anchor is not whole
    assert guard.is_over
    assert not guard.acted
    assert guard.boundary(longer(session, 2)).event.match
    assert guard.acted
    assert not guard.boundary(begin()).event.match
    assert not guard.acted


def test_latents_too_large_to_be_squared_give_no_measure_and_no_action() -> None:
    session = holding(normal(0), normal(1), normal(2), normal(3) * 1e20)
    guard = DriftGuard(session.config, "match", 0.5)
    assert guard.boundary(session).event == session.event
    assert guard.newest is None


def test_a_guard_refuses_what_it_could_not_do() -> None:
    config = sf_core.RolloutConfig()
    with pytest.raises(ValueError, match="expected one of measure, warn, recache, match"):
        DriftGuard(config, "reset")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 or more"):
        DriftGuard(config, "warn", float("nan"))
    with pytest.raises(ValueError, match="rolling"):
        DriftGuard(sf_core.RolloutConfig(schedule="rolling", sink_frames=3, window_frames=21), "match")


def guarded(session: sf_core.Session, guard: DriftGuard, chunks: int) -> sf_core.Session:
    for _ in range(chunks):
        session = guard.boundary(session).next_chunk()[0]
    return session


def test_the_embedded_model_does_not_drift_with_a_prompt_and_without_one_it_does_unless_it_is_matched() -> None:
    """Nothing but its own past says what the video shows, so without a prompt errors add up."""
    model, text = tiny.load_transformer(), tiny.load_text()
    prompted = sf_core.Session.start(model, text.encode(prompts(1, 5)[0]))
    nothing = sf_core.Session.start(model, torch.zeros(1, 1, 64))
    chunks = 24
    assert max(one.drift for one in drift_of(longer(prompted, chunks))) < THRESHOLD
    left = drift_of(longer(nothing, chunks))
    assert max(one.drift for one in left[-8:]) > THRESHOLD
    guard = DriftGuard(nothing.config, "match", 0.0)
    held = guarded(nothing, guard, chunks)
    assert max(one.drift for one in drift_of(held)[ANCHOR_CHUNKS:]) < 1e-3
    assert torch.equal(held.latents, guarded(nothing, DriftGuard(nothing.config, "match", 0.0), chunks).latents)
