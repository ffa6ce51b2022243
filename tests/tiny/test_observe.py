"""What is seen in a clip of the tiny world, from its pixels: things, and the object's colour, place, area and shape."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_world.observe import observe
from sf_core.tiny.world import BACKGROUNDS, COLOURS, SHAPES, Scene, World

SCENE = Scene("red", "square", "right", "slowly", "white", start=(16.2, 30.4), radius=12.0)
UNITS = {"circle": math.pi, "square": 3.24, "triangle": math.sqrt(27) / 4 * 1.3**2}  # areas of shapes of radius 1


def ways(found: Tensor, expected: Tensor, size: float = 64) -> Tensor:
    """How far it is from one place to another, on the shortest way round."""
    apart = (found - expected).abs() % size
    return torch.minimum(apart, size - apart)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("direction", ["left", "down"])
def test_what_crosses_the_edge_is_one_object_with_the_right_shape_centre_and_area(shape: str, direction: str) -> None:
    for across in (30.4, 0.3):  # the middle and, so that it is whole in no frame, the edge
        start = (20.6, across) if direction == "left" else (across, 20.6)
        scene = replace(SCENE, shape=shape, direction=direction, start=start)
        seen = observe(scene.render(64))
        assert seen.found.all()
        assert seen.things.tolist() == [1] * 64
        assert ways(seen.centre, scene.centres(64)).max() < 0.02
        torch.testing.assert_close(seen.area, torch.full((64,), 144 * UNITS[shape]), atol=0, rtol=0.01)
        assert (seen.fits.argmax(dim=1) == list(SHAPES).index(shape)).all()
        assert seen.fits.amax(dim=1).min() > 0.98


def test_a_rolled_frame_looks_the_same_elsewhere() -> None:
    frame = World(seed=3).scene(2).render(1)
    noisy = (frame + 0.03 * torch.randn(frame.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    places = list(itertools.product(range(0, 64, 9), range(0, 64, 13)))
    before = observe(noisy)
    after = observe(torch.cat([noisy.roll((down, right), dims=(1, 2)) for right, down in places]))
    assert ways(after.centre, before.centre + torch.tensor(places)).max() < 1e-3
    for name in ("things", "found", "colour", "backgrounds", "area", "fits"):
        expected = getattr(before, name).expand_as(getattr(after, name))
        torch.testing.assert_close(getattr(after, name), expected, atol=1e-3, rtol=1e-3)


def test_colours_and_backgrounds_are_seen_as_they_are() -> None:
    for index, (colour, background) in enumerate(itertools.product(COLOURS, BACKGROUNDS)):
        scene = replace(SCENE, colour=colour, background=background, start=(7.0 * index, 3.0), radius=14.0)
        seen = observe(scene.render(1))
        assert torch.equal(seen.colour[0], torch.tensor(COLOURS[colour]))
        assert torch.equal(seen.ground[0], torch.tensor(BACKGROUNDS[background]))
        assert seen.backgrounds[0, list(BACKGROUNDS).index(background)] < 0.002
        assert seen.backgrounds[0].sum() > 0.99  # the others are 0.5 and 0.5 or 1 away


@pytest.mark.parametrize("place", [(48.0, 15.0), (63.0, 15.0), (1.0, 63.5)])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_two_objects_are_two_even_a_faint_one_and_one_across_the_edge(
    place: tuple[float, float], strength: float
) -> None:
    scene = replace(SCENE, start=(30.2, 36.4))
    other = replace(scene, start=place, radius=6.0, colour="blue", shape="circle").render(1)
    first = scene.render(8)
    seen = observe(torch.minimum(first, torch.lerp(torch.ones(()), other, strength)))
    assert seen.things.tolist() == [2] * 8
    alone = observe(first)
    for field in fields(alone):
        if field.name not in ("things", "size", "backgrounds"):
            assert torch.equal(getattr(seen, field.name), getattr(alone, field.name)), field.name


def test_a_speck_is_no_thing_not_even_across_the_edge() -> None:
    frames = SCENE.render(8)
    frames[:, 55:59, 55:59] = 0
    frames[:, :2, 60:] = 0
    frames[:, -2:, 60:] = 0
    assert observe(frames).things.tolist() == [1] * 8


def test_what_hangs_together_by_sides_is_one_thing_however_it_winds() -> None:
    spiral = [(8, 8, 56, 11), (53, 8, 56, 56), (8, 53, 56, 56), (8, 20, 11, 56), (8, 20, 44, 23), (41, 20, 44, 44)]
    corners = [(8, 8, 24, 24), (24, 24, 40, 40)]
    apart = [(8, 8, 24, 24), (8, 25, 24, 40)]
    rings = [(0, 8, 64, 12), (0, 30, 64, 34)]  # all the way round
    for boxes, things in ((spiral, 1), (corners, 2), (apart, 2), (rings, 2), ([], 0)):
        picture = torch.zeros(64, 64, 3)
        for left, top, right, bottom in boxes:
            picture[top:bottom, left:right] = 1
        turned = [picture.rot90(quarter) for quarter in range(4)]
        rolled = [picture.roll((down, down // 2), dims=(0, 1)) for down in range(5, 64, 7)]
        expected = [things] * (5 + len(rolled))
        assert observe(torch.stack([*turned, picture.flip(0), *rolled])).things.tolist() == expected


def test_things_are_counted_as_by_walking_through_each() -> None:
    blocks = torch.rand(60, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.4
    frames = blocks.repeat_interleave(6, 1).repeat_interleave(6, 2)[..., None].expand(-1, -1, -1, 3).float()
    # up to two of these blocks are a speck
    assert observe(frames).things.tolist() == [sum(size > 2 for size in walked(one)) for one in blocks]


def walked(blocks: Tensor) -> list[int]:
    """The sizes of the connected areas of a world without walls, [H, W]."""
    left = {(int(row), int(column)) for row, column in blocks.nonzero()}
    sizes = []
    while left:
        edge, size = [left.pop()], 0
        while edge:
            row, column = edge.pop()
            size += 1
            for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                beside = ((row + down) % len(blocks), (column + right) % len(blocks))
                if beside in left:
                    left.remove(beside)
                    edge.append(beside)
        sizes.append(size)
    return sizes


def test_what_is_far_too_small_or_too_large_is_no_object() -> None:
    frames = torch.cat([replace(SCENE, radius=radius).render(1) for radius in (2.0, 5.0, 12.0, 19.0, 21.0)])
    seen = observe(frames)
    assert seen.found.tolist() == [False, False, True, True, False]
    assert seen.things.tolist() == [0, 1, 1, 1, 1]
    for part in (seen.colour, seen.centre, seen.area[:, None], seen.fits):
        assert not part[~seen.found].any()


def test_a_clip_is_seen_frame_by_frame() -> None:
    frames = torch.cat([World(seed=6).scene(index).render(3) for index in range(6)])
    frames[4] = 0.5
    seen = observe(frames)
    assert len(seen) == 18
    for start, end in ((0, 18), (4, 5), (7, 13)):
        window, alone = seen.window(start, end), observe(frames[start:end])
        for field in fields(alone):
            torch.testing.assert_close(getattr(window, field.name), getattr(alone, field.name), atol=1e-4, rtol=1e-4)


def test_frames_that_cannot_be_judged_are_refused() -> None:
    frames = SCENE.render(3)
    for wrong in (frames[0], frames[:0], frames[..., :1], frames[:, :40], frames[:, :20, :20], frames.movedim(-1, 1)):
        with pytest.raises(ValueError, match=r"expected \[T, H, W, 3\]"):
            observe(wrong)
    with pytest.raises(ValueError, match="uint8; expected floating point"):
        observe((frames * 255).to(torch.uint8))
    with pytest.raises(ValueError, match=r"from 0.12 to 255; expected 0..1"):
        observe(frames.where(frames < 1, 255.0))
    with pytest.raises(ValueError, match=r"nan; expected 0..1"):
        observe(frames / 0 * 0)


def test_a_frame_is_seen_in_well_under_two_milliseconds() -> None:
    frames = World().scene(0).render(33)
    started = time.process_time()
    for _ in range(10):
        observe(frames)
    assert time.process_time() - started < 0.66
