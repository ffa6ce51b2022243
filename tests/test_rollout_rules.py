"""Rules of a rollout that make no sense together are refused in a sentence, and plain settings are as ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sf_core
from sf_core.model.sink import ClampedSink, SinkRule, TopAlignedSink

ROLLING = {"schedule": "rolling", "sink_frames": 3}
AVERAGE = {"sink_average": 0.999, "sink_frames": 3, "window_frames": 9}
RECOMPUTE = {"context": "recompute", "window_frames": 6}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trained_frames": 21}, "only 'top_aligned' reads it"),
        ({"sink_position": "top_aligned"}, "needs trained_frames"),
        ({"sink_position": "top_aligned", "trained_frames": 21, "window_frames": None}, "needs window_frames"),
        ({"sink_position": "top_aligned", "trained_frames": 12}, "window_frames is 21 and trained_frames 12"),
        ({**AVERAGE, "sink_average": 1.0}, "expected a number between 0 and 1"),
        ({**AVERAGE, "sink_frames": 2}, "needs sink_frames equal to chunk_frames, here 2 and 3"),
        ({**AVERAGE, "window_frames": 10}, "a window of whole chunks"),
        ({**AVERAGE, "window_frames": None}, "a window of whole chunks"),
        ({**AVERAGE, "first_chunk_frames": 1}, "does not go together with first_chunk_frames=1"),
        ({**ROLLING, "window_frames": 14}, "has 4 chunks of 3 in flight, and a sink of 3: .* at least 15"),
        ({**ROLLING, "window_frames": None}, "at least 15"),
        ({**ROLLING, "denoising_steps": (1000,)}, "needs two denoising steps or more"),
        ({**ROLLING, **AVERAGE}, "schedule='rolling' does not go together with sink_average=0.999"),
        ({**ROLLING, "first_chunk_steps": (1000, 500)}, "does not go together with first_chunk_steps"),
        ({"solver_steps": 4}, "solver is 'renoise'"),
        ({"solver": "unipc"}, "needs solver_steps"),
        ({"solver": "unipc", "solver_steps": 0}, "expected a whole number from 1"),
        ({"solver": "euler"}, "expected one of renoise, unipc"),
        ({"pin_shots": True, "window_frames": None}, "pin_shots keeps the first chunk of a shot"),
        ({"context_in_chunk": True, "chunk_frames": 1}, "needs two frames or more"),
        ({"context_from_last_step": True, "context_noise": 50}, "does not go together with context_noise=50"),
        ({**RECOMPUTE, "context_frames": 4}, "passes whole chunks again: context_frames is 4"),
        ({**RECOMPUTE, "window_frames": 9}, "window_frames is 9, expected 6"),
        ({**RECOMPUTE, "sink_frames": 1}, "does not go together with sink_frames=1"),
        ({"context": "recomputed"}, "expected one of cache, recompute"),
        ({"memory_frames": 3, "window_frames": None}, "which loses nothing"),
        ({"memory_frames": -1}, "expected a whole number from 0"),
        ({"exact_times": 1}, "exact_times is 1; expected True or False"),
    ],
)
def test_settings_that_make_no_sense_together_say_why(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sf_core.RolloutConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"sink_position": "top_aligned", "trained_frames": 21, "window_frames": 12, "sink_frames": 3},
        AVERAGE,
        ROLLING,
        {"solver": "unipc", "solver_steps": 4},
        {"exact_times": True, "denoising_steps": (999.375, 625.5)},
        {"context_from_last_step": True},
        RECOMPUTE,
        {"memory_frames": 3, "window_frames": 12, "sink_frames": 3},
    ],
)
def test_rules_go_through_json_and_plain_settings_do_not_show_them(settings: dict[str, Any]) -> None:
    config = sf_core.RolloutConfig(**settings)
    assert sf_core.RolloutConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    assert config.has_rules
    plain = sf_core.RolloutConfig()
    assert not plain.has_rules
    assert "sink_average" not in plain.as_dict()
    assert "shift" in plain.as_dict()


def test_exact_times_stay_fractions_and_are_not_warped() -> None:
    config = sf_core.RolloutConfig(exact_times=True, denoising_steps=(999.5, 625.25), first_chunk_steps=(1000, 10.5))
    assert config.timesteps(3) == (999.5, 625.25)
    assert config.timesteps(0) == (1000.0, 10.5)


def test_each_position_of_the_sink_is_one_number() -> None:
    for end in range(3, 40):
        oldest = max(3, end - 9)
        assert SinkRule().shift(3, oldest, end) == 0
        assert ClampedSink().shift(3, oldest, end) == oldest - 3
        assert TopAlignedSink(21).shift(3, oldest, end) == max(0, end - 21)
    assert TopAlignedSink(12).shift(3, 40 - 9, 40) == ClampedSink().shift(3, 40 - 9, 40)
