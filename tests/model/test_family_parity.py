"""Models of other families play as their authors' own code does."""

from __future__ import annotations

import pytest

from tests.families import acts_of, play, recorded, start, switches
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


SWITCHES = ("longlive_switch", "longlive_switch_nosink")


@pytest.mark.parametrize("case", SWITCHES)
def test_a_joint_recache_is_that_of_longlive(case: str) -> None:
    assert_close(play(start(case), case, switches(case)).latents, recorded(case))


def test_top_aligned_is_clamped_where_the_window_is_what_was_trained() -> None:
    clamped = play(start("sgf_frame", {"sink_position": "clamped", "trained_frames": None}), "sgf_frame")
    assert relative(clamped.latents, play(start("sgf_frame"), "sgf_frame").latents) == 0.0
