"""A new prompt shows soon, and then the video is as right as one that began with it."""

from __future__ import annotations

import pytest

from benchmarks.tiny_switch import LENGTH, SETTLED, pairs_of, switched_videos
from benchmarks.tiny_world.evaluate import frames_of
from benchmarks.tiny_world.observe import observe
from benchmarks.tiny_world.scorer import judge, summarize
from sf_core import tiny

pytestmark = pytest.mark.slow

PAIRS = 40


def test_two_chunks_after_a_switch_the_video_shows_the_new_prompt() -> None:
    pairs = pairs_of(PAIRS)
    model, encode = tiny.load_transformer(), tiny.load_text().encode
    after = (2 + SETTLED) * 3  # latent frames; two chunks are enough to judge the motion
    videos = switched_videos(model, tiny.load_vae(), encode, pairs, before=LENGTH, after=after)
    start, end = frames_of(LENGTH + SETTLED * 3), frames_of(LENGTH + after)
    found = summarize([judge(observe(clip), pair[1], start, end) for clip, pair in zip(videos, pairs, strict=True)])
    assert found["all_correct"] >= 0.85
