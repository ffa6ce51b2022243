"""Video to video: what a strength means, which steps are taken, and that a source is part of the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sf_core
from sf_core.session.sampler import sample_chunk
from sf_core.session.saved_record import events_in
from sf_core.session.session_file import file_bytes, record_of
from tests.helpers import SIZE, prompt, random_latents, random_model

MODEL = random_model(layers=2)
GIVEN = random_latents(3, seed=5)
SCHEDULES = ("truncated", "rescaled")


def begin(**changes: Any) -> sf_core.Session:
    config = sf_core.RolloutConfig(**{"window_frames": 9, **changes})
    return sf_core.Session.start(MODEL, prompt(0), SIZE, config, seed=7).next_chunk()[0]


def steps_of(session: sf_core.Session) -> list[str]:
    taken: list[str] = []
    session.next_chunk(lambda stage, index, count: taken.append(stage))
    return [stage for stage in taken if stage == "step"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_strength_one_a_chunk_is_what_it_is_without_a_source(schedule: str) -> None:
    plain, sourced = begin().next_chunk(), begin().with_source(GIVEN, 1.0, schedule).next_chunk()
    assert torch.equal(plain[1], sourced[1])
    assert torch.equal(plain[0].next_chunk()[1], sourced[0].next_chunk()[1])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_strength_zero_a_chunk_is_its_source_and_no_step_is_taken(schedule: str) -> None:
    session = begin().with_source(GIVEN, 0.0, schedule)
    assert torch.equal(session.next_chunk()[1], GIVEN)
    assert steps_of(session) == []


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_stronger_the_further_from_the_source(schedule: str) -> None:
    made = [begin().with_source(GIVEN, strength, schedule).next_chunk()[1] for strength in (0.0, 0.65, 0.85, 0.95)]
    distances = [float((one - GIVEN).norm()) for one in made]
    assert distances == sorted(distances)
    assert len(set(distances)) == 4


@pytest.mark.parametrize(("strength", "count"), [(0.6, 0), (0.625, 1), (0.9, 2), (0.9374, 2), (0.9375, 3), (1.0, 4)])
def test_truncated_begins_at_the_first_step_whose_level_is_at_most_the_strength(strength: float, count: int) -> None:
    """Levels at shift 5: 1, 0.9375, 0.8333, 0.625."""
    assert len(steps_of(begin().with_source(GIVEN, strength))) == count


@pytest.mark.parametrize("strength", [0.25, 0.6, 0.7, 0.85, 0.9])
@pytest.mark.parametrize("count", [4, 5])
def test_rescaled_takes_kreas_steps(strength: float, count: int) -> None:
    """An evenly spaced list from 1000 * strength to 0, cut to whole numbers."""
    steps = tuple(int(step) for step in torch.linspace(1000, 0, count))
    expected = tuple(float(int(step)) for step in torch.linspace(1000 * strength, 0, count))
    assert sf_core.RolloutConfig(denoising_steps=steps, warp_steps=False).timesteps(3, strength) == expected


def test_repeated_takes_the_last_step_as_often_as_there_are_steps_on_less_noise_than_it_is_told() -> None:
    session, predictions = begin().with_source(GIVEN, 0.75, "repeated"), list[torch.Tensor]()
    level = session.config.noise_levels.sigma(session.config.timesteps(1)[-1])
    assert session.next_timesteps == session.config.timesteps(1)[-1:] * 4
    assert torch.equal(begin().with_source(GIVEN, 0.0, "repeated").next_chunk()[1], GIVEN)

    def predict(x: torch.Tensor, timestep: float) -> torch.Tensor:
        predictions.append(x)
        return torch.zeros_like(x)

    noise = [random_latents(3, seed=20 + step) for step in range(4)]
    made = sample_chunk(
        predict, noise.__getitem__, session.next_timesteps, session.config.noise_levels, GIVEN, noise_share=0.75
    )
    expected = GIVEN
    for seen, drawn in zip(predictions, noise, strict=True):
        expected = (1 - 0.75 * level) * expected + 0.75 * level * drawn
        torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(made, expected)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_session_with_a_repeated_source_is_saved_and_made_again(tmp_path: Path, strength: float) -> None:
    session, latents = begin().with_source(GIVEN, strength, "repeated").next_chunk()
    session.save(tmp_path / "s")
    assert torch.equal(sf_core.Session.load(tmp_path / "s", MODEL).rewind(1).next_chunk()[1], latents)
    assert record_of(session)[0]["version"] == 4  # older versions would call it damaged


def test_other_lists_are_multiplied() -> None:
    config = sf_core.RolloutConfig(denoising_steps=(1000, 700, 100, 1), warp_steps=False)
    assert config.timesteps(3, 0.5) == (500, 350, 50)
    exact = sf_core.RolloutConfig(denoising_steps=(999.0, 500.5), exact_times=True, window_frames=None)
    assert exact.timesteps(3, 0.5) == (499.5, 250.25)


def test_a_source_is_for_one_chunk_and_comes_back_with_a_rewind() -> None:
    once = begin().with_source(GIVEN, 0.9)
    made, latents = once.next_chunk()
    assert made.source is None
    assert torch.equal(made.rewind(1).next_chunk()[1], latents)
    rolled = made.rewind(1).with_seed(3).next_chunk()[1]
    assert not torch.equal(rolled, latents)
    assert torch.equal(rolled, once.with_seed(3).next_chunk()[1])


def test_a_saved_session_keeps_the_sources_of_its_chunks_and_of_the_next(tmp_path: Path) -> None:
    other = random_latents(3, seed=6)
    session = begin().with_source(GIVEN, 0.9).next_chunk()[0].next_chunk()[0].with_source(other, 0.5, "rescaled")
    session.save(tmp_path / "s")
    loaded = sf_core.Session.load(tmp_path / "s", MODEL)
    assert torch.equal(loaded.next_chunk()[1], session.next_chunk()[1])
    assert torch.equal(loaded.rewind(2).next_chunk()[1], session.rewind(2).next_chunk()[1])
    assert loaded.next_key == session.next_key != session.rewind(0).with_source(other, 0.6, "rescaled").next_key
    record = record_of(loaded)[0]
    assert record["version"] == 2
    assert events_in(record) == "a source at strength 0.9 at chunk 1; no source at chunk 2"


def test_a_file_with_sources_is_as_large_as_is_said(tmp_path: Path) -> None:
    session = begin()
    for _ in range(60):
        session = session.with_source(GIVEN, 0.5).next_chunk()[0]
    session.save(tmp_path / "s")
    assert (tmp_path / "s").stat().st_size == pytest.approx(file_bytes(session), rel=0.1, abs=3000)  # of the record


def test_without_a_source_the_file_is_that_of_the_first_version() -> None:
    record = record_of(begin())[0]
    assert (record["version"], "sources" in record) == (1, False)


@pytest.mark.parametrize(
    ("changes", "given", "options", "said"),
    [
        ({}, GIVEN, {"strength": 1.5}, "strength is 1.5; expected a number from 0"),
        ({}, GIVEN, {"strength": float("nan")}, "strength is nan"),
        ({}, GIVEN, {"strength": 0.5, "schedule": "later"}, "expected one of truncated, rescaled, repeated"),
        ({}, GIVEN[:, :, :2], {"strength": 0.5}, r"\[1, 4, 2, .*\]; the next chunk takes \[1 or 1, 4, 3,"),
        ({}, GIVEN * float("nan"), {"strength": 0.5}, "NaN or Inf; check what encoded them"),
        ({"context_from_last_step": True}, GIVEN, {"strength": 0.1}, "raise the strength"),
        ({"solver": "unipc", "solver_steps": 2}, GIVEN, {"strength": 0.5}, "begins each chunk with noise alone"),
        ({"schedule": "rolling", "window_frames": 21}, GIVEN, {"strength": 0.5}, "take settings with schedule='chunk'"),
    ],
)
def test_what_cannot_be_a_source_is_refused(
    changes: dict[str, Any], given: torch.Tensor, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        begin(**changes).with_source(given, **options)


def test_context_comes_before_the_source() -> None:
    empty = sf_core.Session.start(MODEL, prompt(0), SIZE, sf_core.RolloutConfig(window_frames=9))
    with pytest.raises(ValueError, match="give the context first"):
        empty.with_source(GIVEN, 0.9).with_context(GIVEN)


@pytest.mark.parametrize(
    "sources",
    [7, [[0, 0.5]], [[9, 0.5, "truncated"]], [[1, 0.5, "truncated"]] * 2, [[1, 2, "rescaled"]], [[1, 0.5, 3]]],
)
def test_a_damaged_record_of_sources_is_refused(tmp_path: Path, sources: Any) -> None:
    path = tmp_path / "s"
    begin().with_source(GIVEN, 0.9).next_chunk()[0].save(path)
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["sf.session"])
    record["sources"] = sources
    save_file(load_file(path), path, {"sf.session": json.dumps(record)})
    with pytest.raises(ValueError, match=r"is damaged: (sources is|it holds)"):
        sf_core.Session.load(path, MODEL)


def test_a_kept_chunk_of_a_rescaled_source_writes_what_a_sampled_one_does() -> None:
    """With context_from_last_step a chunk's keys are those of its last step, whose timestep is scaled too."""
    sampled = begin(context_from_last_step=True).with_source(GIVEN, 0.9, "rescaled")
    made = sampled.next_chunk()[0]
    kept = sampled.with_chunk(**made.newest_chunk())
    assert kept.head is not None
    assert made.head is not None
    assert kept.head.timestep == made.head.timestep
    MODEL.release_cache()
    expected = made.next_chunk()[1]
    MODEL.release_cache()
    assert torch.equal(kept.next_chunk()[1], expected)
