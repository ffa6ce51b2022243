"""Models of other families play as their authors' own code does; each wrong variant is told apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families import acts_of, play, recorded, start, switches, two_sets
from tests.helpers import assert_close, relative

PLAIN = (
    *("sgf_chunk", "sgf_frame", "sgfplus_chunk", "sgfplus_frame", "sgfplus_i2v"),
    *("infinite_chunk", "longlive_chunk", "longlive_infinity", "sink5_window7_rerope"),
    *("rcm_c1_step2", "rcm_c1_step2_noisyctx", "rcm_c3_step4", "reward_chunk"),
    *("rolling_4", "rolling_5", "krea_t2v", "krea_start", "memflow"),
)


@pytest.mark.parametrize("case", PLAIN)
def test_a_rollout_gives_the_latents_of_its_authors_code(case: str) -> None:
    assert_close(play(start(case), case).latents, recorded(case))


def test_a_recomputed_context_is_passed_under_the_prompt_before() -> None:
    assert_close(play(start("krea_prompt"), "krea_prompt", acts_of("krea_prompt")).latents, recorded("krea_prompt"))


def test_video_to_video_is_that_of_krea() -> None:
    assert_close(play(start("krea_v2v"), "krea_v2v", acts_of("krea_v2v")).latents, recorded("krea_v2v"))


def not_encoded_anew(session: Any) -> Tensor:
    at = session.frames - session.config.context_frames
    return session.latents_between(at, at + 1)


@pytest.mark.parametrize(("case", "off"), [("krea_t2v", 0.070), ("krea_start", 0.0526)])
def test_a_context_that_is_not_encoded_anew_is_as_far_away_as_was_recorded(case: str, off: float) -> None:
    error = relative(play(start(case, reencode=not_encoded_anew), case).latents, recorded(case))
    assert error == pytest.approx(off, rel=0.05)


SWITCHES = ("longlive_switch", "longlive_switch_nosink")


@pytest.mark.parametrize("case", SWITCHES)
def test_a_joint_recache_is_that_of_longlive(case: str) -> None:
    assert_close(play(start(case), case, switches(case)).latents, recorded(case))


@pytest.mark.parametrize(
    ("case", "options", "off"),
    [
        ("longlive_switch", {"recache": False}, 4.0e-2),
        ("longlive_switch", {"recache_sink": True}, 4.1e-2),
        ("longlive_switch_nosink", {"recache": False, "recache_sink": False}, 5.6e-2),
        ("longlive_switch_nosink", {"recache_sink": False}, 5.2e-2),
    ],
)
def test_a_wrong_recache_is_as_far_away_as_was_recorded(case: str, options: dict[str, Any], off: float) -> None:
    error = relative(play(start(case), case, switches(case, **options)).latents, recorded(case))
    assert error == pytest.approx(off, rel=0.05)


ABSOLUTE = {"sink_position": "absolute", "trained_frames": None}
CLAMPED = {"sink_position": "clamped", "trained_frames": None}


@pytest.mark.parametrize(
    ("case", "changes", "off"),
    [
        ("sgf_chunk", CLAMPED, 2.6e-2),
        ("sgf_chunk", ABSOLUTE, 1.8e-2),
        ("sgf_chunk", {"trained_frames": 20}, 9.1e-3),
        ("sgf_chunk", {"window_frames": 11}, 1.9e-2),
        ("sgf_chunk", {"sink_frames": 2}, 2.4e-2),
        ("sgf_frame", ABSOLUTE, 5.0e-3),
        ("rolling_4", {"window_frames": 24}, 2.4e-2),
        ("rolling_4", {"schedule": "chunk", "sink_position": "clamped", "window_frames": 24}, 1.9e-1),
        ("memflow", {"memory_frames": 0}, 3.9e-2),
        ("reward_chunk", {"sink_average": None}, 8.9e-4),
        ("reward_chunk", {"sink_average": 0.99}, 7.2e-3),
        ("reward_chunk", {"sink_average": 0.998}, 8.7e-4),
        ("reward_chunk", {"sink_position": "absolute"}, 3.4e-2),
    ],
)
def test_a_wrong_variant_is_as_far_away_as_was_recorded(case: str, changes: dict[str, Any], off: float) -> None:
    error = relative(play(start(case, changes), case).latents, recorded(case))
    assert error == pytest.approx(off, rel=0.05)


@pytest.mark.parametrize(
    ("case", "sets", "off"),
    [
        ("sgfplus_chunk", ("weights", "weights"), 2.3e-1),
        ("sgfplus_chunk", ("weights_memory", "weights"), 9.5e-1),
        ("sgfplus_i2v", ("weights", "weights"), 2.1e-1),
    ],
)
def test_a_wrong_set_of_weights_is_told_apart(case: str, sets: tuple[str, str], off: float) -> None:
    error = relative(play(start(case, model=two_sets(*sets)), case).latents, recorded(case))
    assert error == pytest.approx(off, rel=0.05)


def test_a_bank_that_keeps_the_newest_frames_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_newest(keys: Tensor, values: Tensor, text_keys: Tensor, new: tuple[Tensor, Tensor]) -> None:
        for bank, newest in ((keys, new[0]), (values, new[1])):
            bank.copy_(torch.cat([bank[:, newest.shape[1] :], newest], dim=1))

    monkeypatch.setattr("sf_core.model.kv_cache.keep_best", keep_newest)
    assert relative(play(start("memflow"), "memflow").latents, recorded("memflow")) == pytest.approx(1.4e-2, rel=0.05)


def test_top_aligned_is_clamped_where_the_window_is_what_was_trained() -> None:
    clamped = play(start("sgf_frame", CLAMPED), "sgf_frame")
    assert relative(clamped.latents, play(start("sgf_frame"), "sgf_frame").latents) == 0.0
