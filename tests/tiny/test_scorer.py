"""The scorer of the tiny world: real clips pass, any single fault is noticed, and chance is what it should be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.tiny_world.observe import Observation, observe
from benchmarks.tiny_world.scorer import CHANCE, Caption, Score, judge, score, summarize
from sf_core.noise import noise_key
from sf_core.tiny.world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, Scene, World

pytestmark = pytest.mark.slow  # of the benchmarks

SCENE = Scene("red", "square", "right", "slowly", "white", start=(16.2, 30.4), radius=12.0)
FRAMES = 20
VERDICTS = ("one_object", "colour", "shape", "background", "frames_correct", "direction", "speed", "all_correct")


def generator(*address: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(noise_key(*address, *(0,) * (4 - len(address))))


def still(scene: Scene, centre: Sequence[float], radius: float | None = None) -> Tensor:
    """One frame [H, W, 3] with the scene's shape there."""
    return replace(scene, start=(centre[0], centre[1]), radius=radius or scene.radius).render(1)[0]


def along(way: Tensor, scene: Scene = SCENE) -> Tensor:
    """The scene's shape at each of these centres [T, 2]: [T, H, W, 3]."""
    return torch.stack([still(scene, centre) for centre in way.tolist()])


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
    assert found["motion_frames"] == 33


def test_captions_dealt_out_at_random_score_chance(rendered: list[tuple[Observation, str]]) -> None:
    found = []
    for deal in range(4):
        order = torch.randperm(len(rendered), generator=generator(deal)).tolist()
        found += [judge(rendered[other][0], caption) for other, (_, caption) in zip(order, rendered, strict=True)]
    means = summarize(found)
    assert CHANCE["all_correct"] == pytest.approx(1 / 432)
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


def test_long_clips_are_judged_whole_and_by_window_early_and_late() -> None:
    scenes = [World(seed=4).scene(index) for index in range(24)]
    long = [(observe(scene.render(264)), scene.caption) for scene in scenes]
    for window in ((0, 33), (33, 66), (99, 132), (231, 264), (0, 132), (132, 264), (0, 264)):
        found = summarize([judge(seen, caption, *window) for seen, caption in long])
        for verdict in VERDICTS:
            assert found[verdict] >= 0.99, (verdict, window)
        assert found["pace"] == pytest.approx(1, abs=0.01)
        assert found["net_speed"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("window", [(0, 33), (33, 66), (66, 99), (231, 264), (0, 264)])
def test_every_window_is_judged_by_the_sign_of_its_motion(window: tuple[int, int]) -> None:
    seen = observe(SCENE.render(264))
    for direction, net in (("right", 1), ("left", -1), ("up", 0), ("down", 0)):
        found = judge(seen, replace(SCENE, direction=direction).caption, *window)
        assert found.direction is (net == 1)
        assert found.net_speed == pytest.approx(net, abs=0.01)


@pytest.mark.parametrize(("jitter", "spread"), [(0.5, 0.15), (1.0, 0.3)])
def test_jitter_leaves_direction_and_speed_as_they_are(jitter: float, spread: float) -> None:
    seen = []
    for index in range(24):
        scene = World(seed=5).scene(index)
        moved = jitter * torch.randn(66, 2, generator=generator(5, index))
        seen.append((observe(along(scene.centres(66) + moved, scene)), scene.caption))
    for window in ((0, 33), (33, 66)):
        found = [judge(clip, caption, *window) for clip, caption in seen]
        means = summarize(found)
        assert (means["direction"], means["speed"]) == (1, 1)
        assert means["pace"] == pytest.approx(1, abs=0.05)
        assert max(abs(one.pace - 1) for one in found if one.pace is not None) < spread


# Faults ---------------------------------------------------------------------------------------------------------------


def test_the_scene_of_the_faults_has_none_itself() -> None:
    found = judged(SCENE.render(FRAMES))
    assert_right_but_for(found)
    assert found.all_correct
    assert (found.frames, found.motion_frames) == (FRAMES, FRAMES)
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
    for pixels, right in ((0.65, False), (0.75, True), (1.35, True), (1.5, False)):
        found = judged(along(torch.tensor([(16 + pixels * t, 30) for t in range(14)])))
        assert found.speed is right
        assert found.direction
        assert found.pace == pytest.approx(pixels, abs=0.01)


def test_a_speed_is_right_or_wrong_wherever_the_edge_is() -> None:
    for pixels, right in ((0.65, False), (0.72, True), (1.4, True), (1.5, False)):
        seen = observe(along(torch.stack([torch.arange(99) * pixels, torch.full((99,), 30.0)], dim=1)))
        for start in range(0, 67, 3):
            found = judge(seen, SCENE.caption, start, start + 33)
            assert found.speed is right, (pixels, start)
            assert found.pace == pytest.approx(pixels, abs=0.02)
            assert found.net_speed == pytest.approx(pixels, abs=0.02)


def test_a_direction_is_right_to_45_degrees() -> None:
    for degrees, right in ((43, True), (-43, True), (47, False), (-47, False)):
        turn = math.radians(degrees)
        found = judged(along(torch.tensor([(16 + t * math.cos(turn), 30 + t * math.sin(turn)) for t in range(14)])))
        assert found.direction is right
        assert found.net_speed == pytest.approx(math.cos(turn), abs=0.01)


def test_a_frozen_object_is_noticed() -> None:
    found = judged(still(SCENE, SCENE.start).expand(FRAMES, -1, -1, -1))
    assert_right_but_for(found, "direction", "speed")
    assert (found.net_speed, found.pace, found.jerk) == pytest.approx((0, 0, 0), abs=1e-6)


def test_a_standstill_lowers_the_speed_wherever_in_the_window_it_is() -> None:
    steps = torch.arange(33)
    for start in (0, 12, 25):
        moved = steps - (steps - start).clamp(0, 7)
        found = judged(along(torch.stack([50.0 + moved, torch.full((33,), 30.0)], dim=1)))
        assert_right_but_for(found)
        assert found.net_speed == pytest.approx(25 / 32, abs=0.01)
        assert found.pace == pytest.approx(25 / 32, abs=0.06)
    long = judge(observe(torch.cat([SCENE.render(16), SCENE.render(16)[-1:].expand(33, -1, -1, -1)])), SCENE.caption)
    assert_right_but_for(long, "speed")
    assert long.net_speed == pytest.approx(15 / 48, abs=0.01)


def test_a_second_object_is_noticed() -> None:
    other = replace(SCENE, start=(48.0, 15.0), radius=5.0, colour="blue", shape="circle", direction="left")
    found = judged(torch.minimum(SCENE.render(8), other.render(8)))
    assert found.one_object == 0
    assert_right_but_for(found, "one_object")


def test_no_object_is_noticed() -> None:
    found = judged(torch.ones(FRAMES, 64, 64, 3))
    assert (found.one_object, found.colour, found.shape, found.iou, found.frames_correct) == (0, 0, 0, 0, 0)
    assert (found.direction, found.speed, found.net_speed, found.pace, found.jerk) == (False, False, 0, 0, None)
    assert (found.background, found.motion_frames, found.all_correct) == (1, 0, False)


def test_jitter_is_noticed_and_does_not_hide_the_motion() -> None:
    jitter = 1.5 * torch.randn(FRAMES, 2, generator=generator(5))
    found = judged(along(SCENE.centres(FRAMES) + jitter))
    assert_right_but_for(found)
    assert found.jerk is not None
    assert found.jerk > 2


def test_jitter_on_the_spot_is_no_motion() -> None:
    jitter = torch.randn(33, 2, generator=generator(6))
    found = judged(along(30 + jitter))
    assert_right_but_for(found, "direction", "speed")
    assert found.pace is not None
    assert found.pace < 0.3


def test_jitter_across_the_edge_is_no_more_than_elsewhere() -> None:
    for number in range(8):
        jitter = torch.randn(FRAMES, 2, generator=generator(7, number))
        middle, edge = (
            judged(along(SCENE.centres(FRAMES) + shift + jitter)) for shift in (0, torch.tensor([40, 33.6]))
        )
        assert (edge.direction, edge.speed, edge.one_object) == (True, True, 1)
        assert edge.jerk == pytest.approx(middle.jerk, rel=0.01)
        assert edge.net_speed == pytest.approx(middle.net_speed, abs=0.01)


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
    assert (found.direction, found.speed, found.motion_frames) == (True, True, 19)
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


def test_an_object_that_turns_round_is_noticed() -> None:
    there = SCENE.render(20)
    for back, net, right in ((20, 0, False), (13, 7 / 32, False), (5, 15 / 24, True)):
        found = judged(torch.cat([there, there.flip(0)[:back]]))
        assert found.direction is right
        assert found.net_speed == pytest.approx(net, abs=0.01)
        assert found.pace == pytest.approx(3 / 4, abs=0.1)  # a piece is spoilt


def test_a_jump_counts_by_the_shortest_way() -> None:
    for jump, net in ((20, 51 / 32), (40, 7 / 32)):  # 24 back is shorter than 40 on
        found = judged(torch.cat([SCENE.render(16), replace(SCENE, start=(31.2 + jump, 30.4)).render(17)]))
        assert found.net_speed == pytest.approx(net, abs=0.01)


def test_the_track_goes_on_behind_a_gap_also_across_the_edge() -> None:
    quick = replace(SCENE, speed="quickly", start=(46.2, 30.4))
    frames = quick.render(33)
    frames[3:14] = quick.render(1)[0, 0, 0]
    found = score(frames, quick.caption)
    assert found.one_object == pytest.approx(22 / 33)
    assert found.motion_frames == 22
    assert (found.direction, found.speed) == (True, True)
    assert (found.net_speed, found.pace) == pytest.approx((1, 1), abs=0.01)
    assert found.jerk == pytest.approx(0, abs=0.05)


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
    said = Caption.read("The violet ball going to the left fast, on a grey background.")
    assert said == Caption("purple", "circle", "left", "quickly", "gray")
    for direction in DIRECTIONS:
        for speed in SPEEDS:
            assert Caption.read(replace(SCENE, direction=direction, speed=speed).caption).direction == direction


def test_captions_that_the_world_does_not_know_are_refused() -> None:
    frames = SCENE.render(3)
    with pytest.raises(
        ValueError, match=r"'pink', 'star', which the world does not know. Its words: a, .*purple.*disc"
    ):
        score(frames, "a pink star")
    with pytest.raises(ValueError, match="says left and right; expected one direction"):
        score(frames, "a circle moving left, right")
    with pytest.raises(ValueError, match="says red and blue; expected one colour"):
        score(frames, "a blue circle on a red square")


def test_windows_outside_the_clip_are_refused() -> None:
    frames = SCENE.render(3)
    for start, end in ((0, 4), (2, 2), (-1, 2)):
        with pytest.raises(ValueError, match="of a clip of 3; expected 0 <= start < end <= 3"):
            score(frames, "", start, end)
    with pytest.raises(ValueError, match="uint8; expected floating point"):
        score((frames * 255).to(torch.uint8), "")


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
