"""The scorer of the tiny world: real clips pass, any single fault is noticed, and chance is what it should be."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sf_core.noise import noise_key
from sf_core.tiny.observe import Observation, observe
from sf_core.tiny.scorer import CHANCE, Caption, Score, judge, score, summarize
from sf_core.tiny.world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, Scene, World

SCENE = Scene("red", "square", "right", "slowly", "white", start=(16.2, 30.4), radius=12.0)
FRAMES = 20  # the scene then has not come to the wall yet
VERDICTS = ("one_object", "colour", "shape", "background", "frames_correct", "direction", "speed", "all_correct")


def generator(*address: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(noise_key(*address, *(0,) * (4 - len(address))))


def still(scene: Scene, centre: Sequence[float], radius: float | None = None) -> Tensor:
    """One frame [H, W, 3] with the scene's shape there."""
    return replace(scene, start=(centre[0], centre[1]), radius=radius or scene.radius).render(1)[0]


def judged(frames: Tensor) -> Score:
    return score(frames, SCENE.caption)


def assert_right_but_for(found: Score, *faults: str) -> None:
    """Every verdict is perfect, but for ``faults`` and what follows from them."""
    for verdict in set(VERDICTS) - {"frames_correct", "all_correct"} - set(faults):
        assert getattr(found, verdict) == 1, verdict
    for fault in faults:
        assert getattr(found, fault) < 1, fault


@pytest.fixture(scope="module")
def rendered() -> list[tuple[Observation, str]]:
    """What is seen in 500 clips, and their full captions."""
    world = World(clips=500, seed=1)
    scenes = [world.scene(index) for index in range(500)]
    return [(observe(scene.render(33)), scene.caption) for scene in scenes]


# Real clips -----------------------------------------------------------------------------------------------------------


def test_real_clips_are_right_in_every_respect(rendered: list[tuple[Observation, str]]) -> None:
    found = summarize([judge(seen, caption) for seen, caption in rendered])
    for verdict in VERDICTS:
        assert found[verdict] >= 0.99, verdict
    assert found["all_correct_low"] > 0.98
    assert found["iou"] > 0.99
    assert found["background_error"] < 0.001
    assert found["background_drift"] < 0.001
    assert found["net_speed"] == pytest.approx(1, abs=0.01)
    assert found["pace"] == pytest.approx(1, abs=0.01)
    assert found["jerk"] < 0.05
    assert min(judge(seen, caption).motion_frames for seen, caption in rendered) >= 5


def test_captions_dealt_out_at_random_score_chance(rendered: list[tuple[Observation, str]]) -> None:
    found = []
    for deal in range(4):
        order = torch.randperm(len(rendered), generator=generator(deal)).tolist()
        found += [judge(rendered[other][0], caption) for other, (_, caption) in zip(order, rendered, strict=True)]
    means = summarize(found)
    assert CHANCE["all_correct"] == pytest.approx(1 / 864)
    for verdict, chance in CHANCE.items():
        assert abs(means[verdict] - chance) < 4 * math.sqrt(chance * (1 - chance) / len(found)), verdict
    assert means["one_object"] == 1
    assert abs(means["net_speed"]) < 0.05


def test_what_an_autoencoder_does_to_a_picture_is_forgiven() -> None:
    world = World(clips=70, seed=2)
    taps = torch.exp(-(torch.arange(-3.0, 4) ** 2) / 2)
    kernel = torch.outer(taps, taps).div(taps.sum() ** 2).expand(3, 1, 7, 7)
    scores, errors = [], []
    for index in range(70):
        scene = world.scene(index)
        frames = scene.render(33)
        soft = F.conv2d(F.pad(frames.movedim(-1, 1), (3,) * 4, "replicate"), kernel, groups=3).movedim(1, -1)
        noise = 0.035 * torch.randn(frames.shape, generator=generator(2, index))
        decoded = (soft + noise).clamp(0, 1)
        errors.append(float((decoded - frames).square().mean()))
        scores.append(score(decoded, scene.caption))
    assert -10 * math.log10(sum(errors) / len(errors)) == pytest.approx(28, abs=1)
    found = summarize(scores)
    for verdict in VERDICTS:
        assert found[verdict] >= 0.97, verdict


@pytest.mark.parametrize("size", [32, 96])
def test_other_sizes_are_judged_alike(size: int) -> None:
    world = World(size=size, clips=20, seed=3)
    found = summarize([score(world.scene(index).render(33), world.scene(index).caption) for index in range(20)])
    for verdict in VERDICTS:
        assert found[verdict] >= 0.99, verdict
    assert found["pace"] == pytest.approx(1, abs=0.01)
    assert found["jerk"] < 0.1  # in pixels of a frame 64 wide


def test_long_clips_are_judged_whole_and_by_window_whatever_bounces() -> None:
    world = World(clips=8, seed=4)
    for scene in map(world.scene, range(8)):
        seen = observe(scene.render(8 * 33))
        for start, end in ((0, None), (0, 33), (33, 66), (99, 132), (231, 264)):
            found = judge(seen, scene.caption, start, end)
            assert found.all_correct, (scene, start)
            assert found.frames_correct == 1
            assert found.pace == pytest.approx(1, abs=0.02)
            assert found.net_speed == pytest.approx(1, abs=0.02)


# Faults ---------------------------------------------------------------------------------------------------------------


def test_the_scene_of_the_faults_has_none_itself() -> None:
    found = judged(SCENE.render(FRAMES))
    assert_right_but_for(found)
    assert found.all_correct
    assert (found.frames, found.motion_frames) == (FRAMES, 16)
    assert found.net_speed == pytest.approx(1, abs=0.001)
    assert found.jerk is not None
    assert found.jerk < 0.05


@pytest.mark.parametrize(
    ("what", "word"),
    [
        *[("colour", word) for word in COLOURS if word != "red"],
        *[("shape", word) for word in SHAPES if word != "square"],
        *[("direction", word) for word in DIRECTIONS if word != "right"],
        *[("background", word) for word in BACKGROUNDS if word != "white"],
        ("speed", "quickly"),
    ],
)
def test_whatever_is_other_than_said_is_noticed_and_nothing_else(what: str, word: str) -> None:
    start = (32.0, 32.0) if what == "direction" else SCENE.start
    words: dict[str, Any] = {what: word}
    found = judged(replace(SCENE, start=start, **words).render(9))
    assert_right_but_for(found, what)
    assert getattr(found, what) == 0
    assert not found.all_correct


def test_a_speed_is_right_as_long_as_the_other_is_further() -> None:
    for pixels, right in ((0.9, False), (1.5, True), (2.7, True), (3.0, False)):
        frames = torch.stack([still(SCENE, (16 + pixels * t, 30)) for t in range(10)])
        found = judged(frames)
        assert found.speed is right
        assert found.direction
        assert found.pace == pytest.approx(pixels / 2, abs=0.01)


def test_a_direction_is_right_to_22_degrees() -> None:
    for degrees, right in ((20, True), (-20, True), (25, False), (-25, False)):
        turn = math.radians(degrees)
        way = [(16 + 2 * t * math.cos(turn), 30 + 2 * t * math.sin(turn)) for t in range(14)]
        found = judged(torch.stack([still(SCENE, centre) for centre in way]))
        assert found.direction is right
        assert found.net_speed == pytest.approx(math.cos(turn), abs=0.01)


def test_a_frozen_object_is_noticed() -> None:
    found = judged(still(SCENE, SCENE.start).expand(FRAMES, -1, -1, -1))
    assert_right_but_for(found, "direction", "speed")
    assert (found.net_speed, found.pace, found.jerk) == pytest.approx((0, 0, 0), abs=1e-6)
    late = judge(observe(torch.cat([SCENE.render(16), SCENE.render(16)[-1:].expand(33, -1, -1, -1)])), SCENE.caption)
    assert late.direction
    assert late.speed is False


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_a_second_object_is_noticed_even_a_faint_one(strength: float) -> None:
    other = replace(SCENE, start=(48.0, 15.0), radius=5.0, colour="blue", shape="circle", direction="left")
    first, second = SCENE.render(8), torch.lerp(torch.ones(()), still(other, other.start), strength)
    found = judged(torch.minimum(first, second))
    assert found.one_object == 0
    assert_right_but_for(found, "one_object")


def test_a_speck_is_no_object() -> None:
    frames = SCENE.render(8)
    frames[:, 55:59, 55:59] = 0
    assert judged(frames).one_object == 1


def test_what_hangs_together_by_sides_is_one_thing_however_it_winds() -> None:
    black, white = torch.zeros(64, 64, 3), 1.0
    spiral = [(8, 8, 56, 11), (53, 8, 56, 56), (8, 53, 56, 56), (8, 20, 11, 56), (8, 20, 44, 23), (41, 20, 44, 44)]
    corners = [(8, 8, 24, 24), (24, 24, 40, 40)]
    apart = [(8, 8, 24, 24), (8, 25, 24, 40)]
    for boxes, things in ((spiral, 1), (corners, 2), (apart, 2), ([], 0)):
        picture = black.clone()
        for left, top, right, bottom in boxes:
            picture[top:bottom, left:right] = white
        turned = [picture.rot90(quarter) for quarter in range(4)]
        assert observe(torch.stack([*turned, picture.flip(0), black])).things.tolist() == [things] * 5 + [0]


def test_no_object_is_noticed() -> None:
    found = judged(torch.ones(FRAMES, 64, 64, 3))
    assert (found.one_object, found.colour, found.shape, found.iou, found.frames_correct) == (0, 0, 0, 0, 0)
    assert (found.direction, found.speed, found.net_speed, found.pace, found.jerk) == (False, False, 0, 0, None)
    assert (found.background, found.motion_frames, found.all_correct) == (1, 0, False)


def test_jitter_is_noticed_and_does_not_hide_the_motion() -> None:
    jitter = 1.5 * torch.randn(FRAMES, 2, generator=generator(5))
    frames = torch.stack([still(SCENE, centre.tolist()) for centre in SCENE.centres(FRAMES) + jitter])
    found = judged(frames)
    assert_right_but_for(found)
    assert found.jerk is not None
    assert found.jerk > 2


def test_jitter_on_the_spot_is_no_motion() -> None:
    jitter = torch.randn(33, 2, generator=generator(6))
    found = judged(torch.stack([still(SCENE, (30 + float(x), 30 + float(y))) for x, y in jitter]))
    assert_right_but_for(found, "direction", "speed")
    assert found.pace is not None
    assert found.pace < 0.3


def test_a_background_that_drifts_is_noticed() -> None:
    dimmed = SCENE.render(FRAMES) * torch.linspace(1, 0.7, FRAMES)[:, None, None, None]
    found = judged(dimmed)
    assert found.background_drift == pytest.approx(0.3 * 15 / 19, abs=0.01)
    assert found.background_error == pytest.approx(0.15, abs=0.01)
    assert found.background == pytest.approx(7 / 20)
    assert_right_but_for(found, "background")
    assert not found.all_correct


def test_a_black_frame_is_noticed_and_the_motion_goes_on_behind_it() -> None:
    frames = SCENE.render(FRAMES)
    frames[7] = 0
    found = judged(frames)
    assert found.one_object == found.background == found.frames_correct == pytest.approx(19 / 20)
    assert (found.direction, found.speed, found.motion_frames) == (True, True, 15)
    assert found.net_speed == pytest.approx(1, abs=0.01)


def test_an_object_that_melts_is_noticed() -> None:
    frames = SCENE.render(FRAMES)
    molten = torch.stack(
        [
            F.interpolate(frame.movedim(-1, 0)[None], scale_factor=(1 + t / 10, 1)).movedim(1, -1)[0, :64]
            for t, frame in enumerate(frames)
        ]
    )
    found = judged(molten)
    assert found.shape is not None
    assert found.iou is not None
    assert found.shape < 0.6
    assert found.iou < 0.85
    assert not found.all_correct


def test_an_object_that_dwindles_or_swells_is_noticed() -> None:
    for last in (3.0, 26.0):
        radii = torch.linspace(12, last, FRAMES).tolist()
        found = judged(torch.stack([still(SCENE, (32, 32), radius) for radius in radii]))
        assert 0.2 < found.one_object < 0.9


def test_an_object_that_turns_round_in_the_open_is_noticed() -> None:
    there = SCENE.render(8)
    found = judged(torch.cat([there, there.flip(0)]))
    assert found.direction is False
    assert found.net_speed == pytest.approx(0, abs=0.1)


def test_two_faults_in_turn_are_right_in_no_more_frames_than_both_leave() -> None:
    frames = torch.cat([replace(SCENE, colour="blue").render(16)[:8], SCENE.render(16)[8:]])
    frames[8:12] = torch.ones(3)
    found = judged(frames)
    assert (found.colour, found.one_object, found.frames_correct) == (0.25, 0.75, 0.25)


# Captions and input ---------------------------------------------------------------------------------------------------


def test_what_a_caption_does_not_say_is_not_judged() -> None:
    frames = SCENE.render(FRAMES)
    silent = score(frames, "")
    assert [getattr(silent, name) for name in ("colour", "shape", "background", "direction", "speed")] == [None] * 5
    assert [getattr(silent, name) for name in ("iou", "background_error", "net_speed", "pace")] == [None] * 4
    assert silent.all_correct
    assert score(torch.ones(8, 64, 64, 3), "").all_correct is False
    moving = score(frames, "moving quickly")
    assert (moving.direction, moving.net_speed, moving.speed, moving.all_correct) == (None, None, False, False)
    left = score(frames, "a red square moving left")
    assert (left.direction, left.speed, left.net_speed, left.colour, left.all_correct) == (False, None, None, 1, False)


def test_captions_are_read_as_the_model_reads_them() -> None:
    said = Caption.read("The violet ball going leftwards and upwards fast, on a grey background.")
    assert said == Caption("purple", "circle", "up and left", "quickly", "gray")
    for direction in DIRECTIONS:
        for speed in SPEEDS:
            assert Caption.read(replace(SCENE, direction=direction, speed=speed).caption).direction == direction


def test_captions_that_the_world_does_not_know_are_refused() -> None:
    frames = SCENE.render(3)
    with pytest.raises(
        ValueError, match=r"'pink', 'star', which the world does not know. Its words: a, .*purple.*disc"
    ):
        score(frames, "a pink star")
    with pytest.raises(ValueError, match="says left, right; expected one of left, right, up"):
        score(frames, "a circle moving left and right")
    with pytest.raises(ValueError, match="says red and blue; expected one colour"):
        score(frames, "a blue circle on a red square")


def test_frames_that_cannot_be_judged_are_refused() -> None:
    frames = SCENE.render(3)
    for wrong in (frames[0], frames[:0], frames[..., :1], frames[:, :40], frames[:, :20, :20], frames.movedim(-1, 1)):
        with pytest.raises(ValueError, match=r"expected \[T, H, W, 3\]"):
            score(wrong, "")
    with pytest.raises(ValueError, match="uint8; expected floating point"):
        score((frames * 255).to(torch.uint8), "")
    with pytest.raises(ValueError, match=r"from 0.12 to 255; expected 0..1"):
        score(frames.where(frames < 1, 255.0), "")
    with pytest.raises(ValueError, match=r"nan; expected 0..1"):
        score(frames / 0 * 0, "")
    for start, end in ((0, 4), (2, 2), (-1, 2)):
        with pytest.raises(ValueError, match="of a clip of 3; expected 0 <= start < end <= 3"):
            score(frames, "", start, end)


def test_two_frames_are_judged_but_for_their_motion() -> None:
    found = judged(SCENE.render(2).to(torch.bfloat16))
    assert (found.direction, found.speed, found.net_speed, found.jerk) == (None, None, None, None)
    assert found.all_correct


# Summaries ------------------------------------------------------------------------------------------------------------


def test_a_summary_has_means_their_errors_and_a_lower_bound() -> None:
    right = judged(SCENE.render(FRAMES))
    wrong = replace(right, direction=False, shape=0.5, jerk=None)
    found = summarize([right] * 3 + [wrong])
    assert found["clips"] == 4
    assert found["direction"] == 0.75
    assert found["direction_se"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert found["direction_low"] == pytest.approx(0.3006, abs=1e-4)  # Wilson's interval for 3 of 4, from tables
    assert found["shape"] == 0.875
    assert "shape_low" not in found
    assert found["jerk"] == right.jerk
    assert "colour" not in summarize([score(SCENE.render(3), "")])
    assert "direction_se" not in summarize([right])
    with pytest.raises(ValueError, match="no scores to summarize"):
        summarize([])


def test_a_clip_is_judged_in_well_under_a_tenth_of_a_second() -> None:
    scene = World().scene(0)
    frames = scene.render(33)
    started = time.process_time()
    for _ in range(10):
        score(frames, scene.caption)
    assert time.process_time() - started < 1
