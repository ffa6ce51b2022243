"""Rules of other published models hold what a session promises, take the memory they say, and are compiled whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import sf_core
from sf_core.memory_ledger import Setup
from sf_core.model.bank import BankRule, keep_best
from sf_core.model.kv_cache import RollingKVCache
from sf_core.session.session_file import file_bytes
from tests.helpers import SIZE, prompt, random_latents, random_model
from tests.session.test_session_properties import Boom, CountedPasses, reencode

ROLLING = {
    "schedule": "rolling",
    "chunk_frames": 2,
    "window_frames": 10,
    "sink_frames": 2,
    "denoising_steps": (1000, 750, 250),
}
RULES: dict[str, dict[str, Any]] = {
    "top aligned": {"sink_position": "top_aligned", "trained_frames": 9, "window_frames": 7, "sink_frames": 2},
    "exact times": {"exact_times": True, "denoising_steps": (999.5, 625.25), "window_frames": None},
    "last step": {"context_from_last_step": True, "window_frames": 7, "sink_frames": 1},
    "average": {"sink_average": 0.9, "window_frames": 6, "sink_frames": 2},
    "clamped average": {"sink_average": 0.9, "window_frames": 6, "sink_frames": 2, "sink_position": "clamped"},
    "rolling": ROLLING,
    "bank": {"memory_frames": 2, "memory_interval": 2, "window_frames": 6, "sink_frames": 2},
    "bank and last step": {"memory_frames": 2, "window_frames": 6, "context_from_last_step": True},
    "recompute": {"context": "recompute", "context_frames": 4, "window_frames": 6},
    "int8, clamped average": {
        **{"kv_dtype": "int8", "sink_average": 0.9, "window_frames": 6, "sink_frames": 2, "sink_position": "clamped"}
    },
    "int4, rolling": ROLLING | {"kv_dtype": "int4"},
    "fp8, bank and last step": {
        **{"kv_dtype": "fp8", "memory_frames": 2, "window_frames": 6, "context_from_last_step": True}
    },
    "solver and shots": {
        **{"solver": "unipc", "solver_steps": 2, "shot_offset": 3, "pin_shots": True},
        **{"window_frames": 8, "sink_frames": 2, "context_in_chunk": True},
    },
}
OFFLOAD: dict[str, Any] = {"kv_offload": True}
every_rule = pytest.mark.parametrize("rule", sorted(RULES))


def config(rule: str) -> sf_core.RolloutConfig:
    return sf_core.RolloutConfig(**{"chunk_frames": 2, "denoising_steps": (1000, 500), **RULES[rule]})


def start(rule: str, model: sf_core.CausalWan) -> sf_core.Session:
    return sf_core.Session.start(model, prompt(0), SIZE, config(rule), reencode=reencode)


def run(session: sf_core.Session, chunks: int) -> sf_core.Session:
    for _ in range(chunks):
        session, _ = session.next_chunk()
    return session


@every_rule
def test_a_file_is_as_large_as_is_said_before_it_is_written(rule: str, tmp_path: Path) -> None:
    session = run(start(rule, random_model(layers=1)), 16)
    session.save(tmp_path / "s")
    assert (tmp_path / "s").stat().st_size == pytest.approx(file_bytes(session), rel=0.1, abs=3000)  # of the record


@every_rule
def test_the_cache_takes_the_bytes_that_are_planned_and_no_more_later(rule: str) -> None:
    model = random_model(layers=2)
    session = run(start(rule, model), 12)
    assert model.caches.nbytes == model.cache_bytes(config(rule), SIZE, frames=session.frames)
    if config(rule).window_frames is not None:
        assert model.caches.nbytes == model.cache_bytes(config(rule), SIZE)


@pytest.mark.parametrize(
    "extra",
    [{}, {"kv_dtype": "int8"}, {"window_frames": None}, {"memory_frames": 2}, OFFLOAD, OFFLOAD | {"kv_dtype": "int8"}],
)
@pytest.mark.parametrize("chunks", [2, 10])
def test_a_joint_recache_takes_the_buffers_that_are_planned(
    extra: dict[str, Any], chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a replay repeats it; and none is planned after a cut or another recache."""
    settings = sf_core.RolloutConfig(
        chunk_frames=2, denoising_steps=(1000,), sink_frames=1, **{"window_frames": 7} | extra
    )
    model = random_model(layers=2)
    session = run(sf_core.Session.start(model, prompt(0), SIZE, settings), chunks)
    assert session.joint_frames == 0
    session = session.with_prompt(prompt(1), recache="joint")
    made = list[int]()
    buffer = RollingKVCache.buffer

    def counted(self: RollingKVCache, *args: Any) -> Tensor:
        made.append(buffer(self, *args).nbytes)
        return buffer(self, *args)

    setup = Setup(settings, SIZE, frames=session.frames + 2, joint_frames=session.joint_frames)
    planned = session.cache_shape.wide_bytes(setup.recached_frames)
    whole = model.cache_bytes(settings, SIZE, frames=setup.frames)
    for lost in (False, True):
        if lost:
            model.release_cache()
        with monkeypatch.context() as patched:
            patched.setattr(RollingKVCache, "buffer", counted)
            made.clear()
            longer, _ = session.next_chunk()
        assert sum(made) <= planned + (whole if lost else 0)
        if not lost:
            assert sum(made) == planned
    assert longer.joint_frames == session.joint_frames
    assert longer.with_cut().joint_frames == 0
    assert longer.with_prompt(prompt(2), recache=True, recache_sink=True).joint_frames == 0


@pytest.fixture(scope="module")
def compiler() -> CompileCounter:
    """One for all rules, so that a graph that does for several of them is made once."""
    torch._dynamo.reset()
    return CompileCounter()


@every_rule
def test_blocks_are_compiled_whole(rule: str, compiler: CompileCounter) -> None:
    model = random_model(layers=1)
    expected = run(start(rule, model), 4).latents
    model.release_cache()
    model.compile(backend=compiler, fullgraph=True)
    assert torch.allclose(run(start(rule, model), 4).latents, expected, atol=1e-4)
    assert compiler.frame_count


@every_rule
@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupt_at_any_forward_leaves_the_next_chunk_bit_equal(rule: str, at: int) -> None:
    model = random_model(layers=2)
    expected = run(start(rule, model), 6).latents
    recache: bool | str = False if config(rule).context == "recompute" or config(rule).pin_shots else "joint"
    session, left = run(start(rule, model), 4).with_prompt(prompt(0), recache), [at]
    straight = run(run(start(rule, random_model(layers=2)), 4).with_prompt(prompt(0), recache), 2).latents

    def interrupt(stage: str, index: int, count: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Boom

    with pytest.raises(Boom):
        _ = [session.next_chunk(interrupt) for _ in range(9)]
    assert torch.equal(run(session, 2).latents, straight)
    assert torch.equal(run(run(start(rule, model), 3).fork(), 3).latents, expected)


def test_the_keys_and_values_of_a_last_step_cost_no_pass() -> None:
    model = random_model(layers=2)
    session, counted = run(start("last step", model), 3), CountedPasses(model)
    session, _ = session.next_chunk()
    assert counted.count == 2
    model.release_cache()
    session.next_chunk()
    assert counted.count > 2 + 2


# Rolling --------------------------------------------------------------------------------------------------------


def test_a_chunk_of_a_rolling_schedule_costs_one_joint_pass_and_one_that_writes() -> None:
    model = random_model(layers=2)
    session, counted = start("rolling", model), CountedPasses(model)
    for chunk in range(6):
        session, _ = session.next_chunk()
        assert counted.count == 3 + 2 * chunk, "three passes until the first chunk, then a joint one and a written one"
    counted.count = 0
    session, latents = session.finish()
    assert counted.count == 2 * 2
    assert latents.shape[2] == 2 * 2
    assert session.flights is None


def test_a_finished_video_goes_on_and_rewinds_into_what_was_in_flight() -> None:
    model = random_model(layers=2)
    finished, _ = run(start("rolling", model), 3).finish()
    assert (finished.chunks, finished.frames) == (5, 10)
    longer = run(finished, 2)
    model.release_cache()
    assert torch.equal(run(finished, 2).latents, longer.latents)
    back = finished.rewind(2)
    assert torch.equal(back.latents, run(start("rolling", model), 3).latents)
    assert torch.equal(back.finish()[0].latents, finished.latents)
    assert torch.equal(run(back, 2).latents, run(start("rolling", model), 5).latents)
    one_left = finished.rewind(1)
    model.release_cache()
    assert torch.equal(one_left.finish()[0].latents, finished.latents)
    assert run(one_left, 2).frames == 12


def test_what_was_in_flight_moves_to_disk_and_a_rewind_reads_it() -> None:
    model = random_model(layers=2)
    session = run(start("rolling", model), 9)
    assert session.head is not None
    flights = [block.flights for block in session.head.back()]
    held = [flight is not None and flight.latents.in_memory for flight in flights]
    assert held == [True] * 3 + [False] * 6, "those of the last three chunks, the newest of which came last"
    assert torch.equal(run(session.rewind(6), 6).latents, session.latents)


def test_what_is_in_flight_follows_a_new_prompt_and_is_given_up_by_a_cut() -> None:
    model = random_model(layers=2)
    session = run(start("rolling", model), 3)
    plain = session.next_chunk()[1]
    assert not torch.equal(session.with_prompt(prompt(1)).next_chunk()[1], plain)
    cut, counted = session.with_cut(), CountedPasses(model)
    with pytest.raises(ValueError, match="a cut gives up the chunks in flight"):
        cut.finish()
    assert not torch.equal(cut.next_chunk()[1], plain)
    assert counted.count == 3


def test_finish_says_what_has_nothing_in_flight() -> None:
    model = random_model(layers=1)
    with pytest.raises(ValueError, match="has no chunks in flight to finish"):
        start("average", model).finish()
    session, latents = start("rolling", model).finish()
    assert (session.frames, latents.shape[2]) == (0, 0)


def test_a_rolling_video_begins_with_given_frames() -> None:
    model, given = random_model(layers=2), random_latents(4)
    session = run(start("rolling", model).with_context(given), 2)
    assert torch.equal(session.latents[:, :, :4], given)
    assert not torch.equal(session.latents[:, :, 4:], run(start("rolling", model), 2).latents)


# Recompute ------------------------------------------------------------------------------------------------------


def test_a_context_is_encoded_anew_once_a_chunk_and_the_session_keeps_it(tmp_path: Path) -> None:
    asked: list[int] = []

    def counted(session: Any) -> torch.Tensor:
        asked.append(session.chunks)
        return reencode(session)

    model = random_model(layers=2)
    session = sf_core.Session.start(model, prompt(0), SIZE, config("recompute"), reencode=counted)
    session = run(session, 5)
    assert asked == [3, 4], "a context of two chunks is the video's own until there are three"
    again = run(session.rewind(1).with_seed(3), 1)
    assert asked == [3, 4]
    again.save(tmp_path / "s")
    loaded = sf_core.Session.load(tmp_path / "s", model)
    assert torch.equal(loaded.rewind(1).next_chunk()[1], again.rewind(1).next_chunk()[1])
    with pytest.raises(ValueError, match=r"give Session.start or Session.load 'reencode'"):
        loaded.next_chunk()
    assert asked == [3, 4]


def _given(latents: torch.Tensor, session: Any) -> torch.Tensor:
    return latents


def test_what_encodes_a_context_anew_is_checked() -> None:
    model = random_model(layers=1)
    for given, message in ((random_latents(2), "expected one frame"), (random_latents(1) / 0, "NaN or Inf")):
        answer = partial(_given, given)
        session = sf_core.Session.start(model, prompt(0), SIZE, config("recompute"), reencode=answer)
        with pytest.raises(ValueError, match=message):
            run(session, 4)
    with pytest.raises(ValueError, match="switch the prompt without a recache"):
        session.with_prompt(prompt(1), recache=True)


# Bank -----------------------------------------------------------------------------------------------------------


def test_a_full_bank_keeps_what_the_prompt_looks_at_most() -> None:
    """Three frames of one token and one number; in a batch, each element keeps its own."""
    keys = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]).reshape(2, 3, 1, 1)
    values, text = keys * 10, torch.ones(2, 5, 1, 1)
    keep_best(keys, values, text, (torch.full((2, 1, 1, 1), 9.0), torch.full((2, 1, 1, 1), 90.0)))
    assert keys.flatten(1).tolist() == [[3.0, 2.0, 9.0], [3.0, 2.0, 9.0]]
    assert values.flatten(1).tolist() == [[30.0, 20.0, 90.0], [30.0, 20.0, 90.0]]


def test_places_of_a_bank_are_filled_one_an_interval() -> None:
    rule = BankRule(frames=3, interval=3, chunk=3)
    assert [rule.filled(3 * chunk, 0) for chunk in range(9)] == [0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert [rule.place(3 * chunk, 0) for chunk in range(10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, None]
    assert rule.filled(30, 27) == 1, "a cut empties it"


@pytest.mark.parametrize("recache_sink", [False, True])
def test_a_bank_without_a_ring_follows_a_recache(recache_sink: bool) -> None:
    """The recache passes the sink at most again, and not the newest chunk, whose frame enters the bank."""
    rule = sf_core.RolloutConfig(
        chunk_frames=2, window_frames=5, sink_frames=3, memory_frames=3, memory_interval=2, denoising_steps=(1000, 500)
    )
    made = []
    for lost in (False, True):
        model = random_model(layers=2)
        session = run(sf_core.Session.start(model, prompt(0), SIZE, rule), 4)
        session = session.with_prompt(prompt(1), recache=True, recache_sink=recache_sink)
        for _ in range(3):
            if lost:
                model.release_cache()
            session, _ = session.next_chunk()
        made.append(session.latents)
    assert torch.equal(*made)
