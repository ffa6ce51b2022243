"""The weights that make one latent frame at a time: as right as the others, and quick to follow a new prompt."""

from __future__ import annotations

import pytest

from benchmarks.tiny_switch import LENGTH, pairs_of, switched_videos, turns_of
from benchmarks.tiny_world.evaluate import frames_of, make_videos
from benchmarks.tiny_world.observe import Observation, observe
from benchmarks.tiny_world.scorer import judge, summarize
from sf_core import tiny
from sf_core.tiny.world import prompts

pytestmark = pytest.mark.slow

CAPTIONS = prompts(60, seed=6)
PAIRS = 60
MODEL, VAE, ENCODE = tiny.load_transformer(framewise=True), tiny.load_vae(), tiny.load_text().encode


@pytest.fixture(scope="module")
def seen() -> list[Observation]:
    """Videos of four training lengths."""
    return [observe(frames) for frames in make_videos(MODEL, VAE, ENCODE, CAPTIONS, 4 * LENGTH)]


@pytest.mark.parametrize("times", [1, 4])
def test_videos_show_what_the_prompt_says(seen: list[Observation], times: int) -> None:
    end = frames_of(times * LENGTH)
    found = summarize([judge(clip, caption, 0, end) for clip, caption in zip(seen, CAPTIONS, strict=True)])
    assert found["all_correct"] >= 0.9
    assert found["background_error"] < 0.01


@pytest.mark.parametrize(
    ("pairs", "settled"),
    [(turns_of(PAIRS), 2), (pairs_of(PAIRS), 6)],
    ids=["another direction, after 8 frames", "another prompt, after 24 frames"],
)
def test_a_key_is_followed_soon(pairs: list[tuple[str, str]], settled: int) -> None:
    """Over a training length that begins so many latent frames after the switch, which is without recache."""
    videos = switched_videos(MODEL, VAE, ENCODE, pairs, after=settled + LENGTH, recache=False)
    start, end = frames_of(LENGTH + settled), frames_of(LENGTH + settled + LENGTH)
    found = summarize([judge(observe(clip), pair[1], start, end) for clip, pair in zip(videos, pairs, strict=True)])
    assert found["all_correct"] >= 0.85
