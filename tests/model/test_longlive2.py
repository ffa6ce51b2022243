"""LongLive 2.0 plays as its authors' own code does: the solver, shots, a given picture."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sf_core
import sf_core.session.sampler as sampler
from sf_core.unipc import Step, solve, unipc_steps
from tests.helpers import assert_close
from tests.longlive2 import CASES, MODEL, begin, config_of, error_of, play, recorded, step, tensors_of


class NoNoise:
    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape)


@pytest.mark.parametrize("case", list(CASES))
def test_a_rollout_gives_the_latents_of_its_authors_code(case: str) -> None:
    ours, theirs = play(begin(case), case).latents, recorded(case)
    assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("case", "changes", "off"),
    [
        ("longlive2_t2v", {"sink_frames": 0}, 1.87e-2),
        ("longlive2_shots", {"pin_shots": False}, 1.70e-2),
        ("longlive2_shots", {"shot_offset": 0}, 1.40e-2),
        ("longlive2_shots", {"sink_frames": 0, "pin_shots": False}, None),
    ],
)
def test_a_wrong_variant_is_as_far_away_as_was_recorded(case: str, changes: dict[str, Any], off: float | None) -> None:
    error = error_of(begin(case, **changes), case)
    assert error == pytest.approx(off, rel=0.05) if off else error > 1e-2


def _without_corrector(count: int, shift: float) -> tuple[Step, ...]:
    return tuple(replace(one, correct=()) for one in unipc_steps(count, shift))


def _whole_timesteps(count: int, shift: float) -> tuple[Step, ...]:
    return tuple(replace(one, timestep=1000 * one.sigma) for one in unipc_steps(count, shift))


def _euler(count: int, shift: float) -> tuple[Step, ...]:
    steps = unipc_steps(count, shift)
    pairs = pairwise(steps)
    # x + (next - now) * flow, with flow = (x - clean) / now
    factors = [(following.sigma / now.sigma, 1 - following.sigma / now.sigma) for now, following in pairs]
    return tuple(replace(one, correct=(), predict=f) for one, f in zip(steps, [*factors, ()], strict=True))


@pytest.mark.parametrize(
    ("case", "steps", "off"),
    [
        ("longlive2_t2v", _without_corrector, 1.87e-2),
        ("longlive2_t2v", _euler, 7.16e-2),
        ("longlive2_t2v", _whole_timesteps, 6.67e-2),
        ("longlive2_shots", _whole_timesteps, 1.51e-2),
    ],
)
def test_another_solver_is_as_far_away_as_was_recorded(
    case: str, steps: Any, off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "unipc_steps", steps)
    assert error_of(begin(case), case) == pytest.approx(off, rel=0.05)


def test_a_given_frame_at_the_others_timestep_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = sampler.ChunkForward.flow
    monkeypatch.setattr(
        sampler.ChunkForward, "flow", lambda self, x, t: flow(self, x, t if isinstance(t, float) else max(t))
    )
    assert error_of(begin("longlive2_i2v"), "longlive2_i2v") == pytest.approx(1.12e-2, rel=0.05)


# What a session promises ----------------------------------------------------------------------------------------------


def test_lost_caches_saves_forks_and_rewinds_give_the_bits_of_a_straight_run() -> None:
    case = "longlive2_shots"
    straight = play(begin(case), case)
    session = begin(case)
    noise = session.noise
    with tempfile.TemporaryDirectory() as folder:
        for _ in CASES[case]["prompts"]:
            session = step(session, case)
            MODEL.release_cache()
            other = step(session, case) if session.chunks < 10 else session  # a fork that goes on by itself
            assert torch.equal(other.latents, straight.latents[:, :, : other.frames])
            session = step(session.rewind(1), case)
            session.save(Path(folder) / "session.safetensors")
            session = sf_core.Session.load(Path(folder) / "session.safetensors", MODEL, noise=noise)
    assert torch.equal(session.latents, straight.latents)


def test_a_given_frame_is_saved_before_and_after_the_first_chunk_and_never_rewound(tmp_path: Path) -> None:
    case = "longlive2_i2v"
    straight = play(begin(case), case)
    session = begin(case)
    assert session.frames == 0
    noise = session.noise
    for chunks in range(3):
        session.save(tmp_path / "session.safetensors")
        session = sf_core.Session.load(tmp_path / "session.safetensors", MODEL, noise=noise)
        assert session.chunks == chunks
        session = step(session, case)
    assert torch.equal(session.latents, straight.latents)
    assert torch.equal(play(session.rewind(3), case).latents, straight.latents)
    assert torch.equal(session.latents[:, :, :1], tensors_of(case)["initial_latent"].transpose(1, 2))
    with pytest.raises(ValueError, match="a given frame for its first chunk"):
        begin(case).with_context(tensors_of(case)["initial_latent"].transpose(1, 2))
    plain = replace(begin(case), held=None)
    assert plain.root != begin(case).root


def test_a_replay_passes_only_what_the_window_depends_on() -> None:
    case = "longlive2_shots"
    session = play(begin(case), case)
    MODEL.release_cache()
    session = session.with_prompt(tensors_of(case)["prompt_embeds.c"])
    again = replace(session, noise=NoNoise())
    replayed, latents = again.next_chunk()
    # three layers: the sink, the newest three chunks (9, 8, 7), the pinned one (6) and the newest two (5, 4) that it
    # saw, the shot that was pinned then (2) and the chunk (1) before that; not chunk 3
    assert replayed.how == "replay: no cache of this past was live (9 passes)"
    fresh = replace(play(begin(case), case), noise=again.noise).with_prompt(tensors_of(case)["prompt_embeds.c"])
    assert torch.equal(fresh.next_chunk()[1], latents)


def test_no_noise_is_drawn_but_the_first() -> None:
    noise = torch.ones(1, 48, 8, 4, 4)
    assert solve(lambda x, _: x, noise, unipc_steps(4, 5.0)).shape == noise.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sink_position": "clamped"}, "shots do not go together with sink_position='clamped'"),
        ({"window_frames": 23}, "it needs the sink of 8 and two chunks of 8"),
        ({"context_noise": 50}, "context_in_chunk holds a given frame at timestep 0, but context_noise is 50"),
        ({"first_chunk_frames": 1}, "which needs two frames or more"),
        ({"solver_steps": None}, "needs solver_steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of("longlive2_t2v", **changes)


def test_a_shot_without_a_rule_and_a_recache_with_pins_are_refused() -> None:
    text = tensors_of("longlive2_t2v")["prompt_embeds.a"]
    with pytest.raises(ValueError, match="a shot would change nothing"):
        begin("longlive2_t2v", shot_offset=0, pin_shots=False).with_shot(text)
    with pytest.raises(ValueError, match="recache does not go together with pin_shots"):
        begin("longlive2_t2v").with_prompt(text, recache=True)
