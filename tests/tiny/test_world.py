"""The tiny model's world: what its captions say is what is to be seen, and its words can be read."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sf_core.text.word_table import TinyText
from sf_core.tiny.words import ALIASES, PAD, TEXT_LEN, VOCABULARY, word_table, write_text
from sf_core.tiny.world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SPEEDS, Scene, World, prompts, wrapped

SCENE = Scene("red", "circle", "left", "slowly", "gray", start=(40.0, 30.0), radius=12.0)


def shares(scene: Scene, frames: Tensor) -> Tensor:
    """How much of each pixel is the shape's, seen from the pixels alone: [T, H, W]."""
    paint = torch.tensor(COLOURS[scene.colour]) - torch.tensor(BACKGROUNDS[scene.background])
    return (frames - torch.tensor(BACKGROUNDS[scene.background])) @ paint / paint.square().sum()


def seen_centres(scene: Scene, frames: Tensor) -> Tensor:
    """The shape's centre of gravity in each frame, (x, y) in pixels: [T, 2]."""
    share = shares(scene, frames)
    pixels = torch.arange(scene.size) + 0.5
    moments = torch.stack([(share * pixels).sum(dim=(1, 2)), (share * pixels[:, None]).sum(dim=(1, 2))], dim=1)
    return moments / share.sum(dim=(1, 2))[:, None]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_shape_moves_as_its_caption_says(shape: str, direction: str) -> None:
    for speed, pixels in (("slowly", 1), ("quickly", 2)):
        scene = Scene("blue", shape, direction, speed, "white", start=(31.3, 32.6), radius=11.0)
        step = seen_centres(scene, scene.render(4)).diff(dim=0)
        expected = torch.tensor(DIRECTIONS[direction]) * pixels
        torch.testing.assert_close(step, expected.expand(3, 2), atol=0.05, rtol=0)
        assert scene.velocity == pytest.approx(expected.tolist())


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_smooth_and_the_area_is_that_of_the_shape(shape: str) -> None:
    scene = replace(SCENE, shape=shape)
    share = shares(scene, scene.render(3))
    area = {"circle": math.pi * 12**2, "square": (0.9 * 24) ** 2, "triangle": math.sqrt(27) / 4 * (1.3 * 12) ** 2}
    torch.testing.assert_close(share.sum(dim=(1, 2)), torch.full((3,), area[shape]), atol=0, rtol=0.01)
    assert (share > 0.05).logical_and(share < 0.95).sum(dim=(1, 2)).gt(10).all()


def test_a_shape_is_of_its_colour_on_its_background_in_every_pixel_but_those_of_its_edge() -> None:
    for colour, background in itertools.product(COLOURS, BACKGROUNDS):
        frame = replace(SCENE, colour=colour, background=background).render(1)[0]
        inside = (frame == torch.tensor(COLOURS[colour])).all(dim=-1).sum()
        outside = (frame == torch.tensor(BACKGROUNDS[background])).all(dim=-1).sum()
        assert inside > 380
        assert inside + outside > 64 * 64 - 110


@pytest.mark.parametrize("shape", SHAPES)
def test_what_leaves_at_one_edge_comes_in_at_the_opposite_one(shape: str) -> None:
    scene = replace(SCENE, shape=shape, start=(32.25, 31.5))  # whole in the frame
    picture = scene.render(1)
    for right, down in ((32, 0), (-25, 0), (0, 25), (0, -40), (30, 30), (-33, 29), (64, 128)):
        moved = replace(scene, start=(32.25 + right, 31.5 + down)).render(1)
        assert torch.equal(moved, picture.roll((down, right), dims=(1, 2)))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("speed", "pixels"), [("slowly", 1), ("quickly", 2)])
def test_a_shape_moves_on_as_its_caption_says_as_long_as_a_video_lasts(direction: str, speed: str, pixels: int) -> None:
    scene = replace(SCENE, shape="triangle", direction=direction, speed=speed, start=(20.75, 40.5))
    right, down = (int(part * pixels) for part in DIRECTIONS[direction])
    frames = scene.render(300)
    assert torch.equal(frames[64:], frames[:-64])
    for time_passed in (*range(70), 299):
        assert torch.equal(frames[time_passed], frames[0].roll((down * time_passed, right * time_passed), dims=(0, 1)))
    centres = scene.centres(300)
    assert centres.min() >= 0
    assert centres.max() < 64


def test_the_shortest_way_is_never_longer_than_half_the_world() -> None:
    offsets = torch.tensor([0, 1, 31.5, 32, 33, -31.5, -32, -33, 64, 100, -100])
    assert wrapped(offsets, 64).tolist() == [0, 1, 31.5, -32, -31, -31.5, -32, 31, 0, -28, 28]


def test_clips_start_all_over_the_frame_with_whole_shapes_of_all_kinds_and_sizes() -> None:
    scenes = [World().scene(index) for index in range(500)]
    for what, known in (("colour", COLOURS), ("shape", SHAPES), ("direction", DIRECTIONS), ("speed", SPEEDS)):
        counts = [sum(getattr(scene, what) == word for scene in scenes) for word in known]
        assert min(counts) > 0.6 * 500 / len(known)
    radii = torch.tensor([scene.radius for scene in scenes])
    assert 11 <= radii.min() < 11.2
    assert 13.8 < radii.max() <= 14
    side, up, down = (torch.tensor([SHAPES[scene.shape] for scene in scenes]) * radii[:, None]).unbind(dim=1)
    x, y = torch.tensor([scene.start for scene in scenes]).unbind(dim=1)
    for place, before, after in ((x, side, side), (y, up, down)):
        share = (place - before) / (64 - before - after)  # of the room that it has
        assert share.min() >= 0
        assert share.max() <= 1
        assert share.histc(5, 0, 1).min() > 0.7 * 500 / 5
    assert all(scene.centres(1)[0].tolist() == pytest.approx(scene.start) for scene in scenes)


def test_a_clip_crosses_no_edge_but_those_that_it_moves_to() -> None:
    for index in range(60):
        scene = World().scene(index)
        share = shares(scene, scene.render(80))
        rows = share.transpose(1, 2) if DIRECTIONS[scene.direction][1] else share
        assert torch.minimum(rows[:, 0].amax(dim=1), rows[:, -1].amax(dim=1)).max() < 0.01, "it is at both edges"


def test_a_clip_is_a_function_of_seed_and_index() -> None:
    before = torch.random.get_rng_state()
    late, again = World(frames=3, seed=5), World(frames=3, seed=5, clips=2000)
    for index in (7, 0, 1279):
        frames, caption = again[index]
        assert torch.equal(late[index][0], frames)
        assert late[index][1] == caption
    assert World(frames=3, seed=6).scene(7) != late.scene(7)
    assert late.scene(8) != late.scene(7)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_captions_lack_a_clause_or_everything_as_often_as_they_should() -> None:
    world = World(size=16, frames=1, clips=3000)
    found = [(world.scene(index).clauses, world[index][1]) for index in range(3000)]
    for clause in range(3):
        missing = sum(clauses[clause] not in caption for clauses, caption in found) / 3000
        assert missing == pytest.approx(0.1 + 0.9 * 0.1, abs=0.025)
    assert sum(caption == "" for _, caption in found) / 3000 == pytest.approx(0.1, abs=0.02)
    assert all(caption == " ".join(c for c in clauses if c in caption) for clauses, caption in found)


def test_the_world_looks_the_same_at_another_size() -> None:
    large, small = World(size=64, frames=5), World(size=32, frames=5)
    for index in range(10):
        pooled = F.avg_pool2d(large[index][0].movedim(-1, 1), 2).movedim(1, -1)
        assert (pooled - small[index][0]).abs().mean() < 0.004


def test_a_world_is_a_sequence_that_ends() -> None:
    world = World(size=16, frames=2, clips=3)
    assert len(world) == 3
    assert [frames.shape for frames, _ in world] == [(2, 16, 16, 3)] * 3  # type: ignore[attr-defined]
    with pytest.raises(IndexError, match="clip 3 of a world of 3"):
        world[3]


def test_clips_are_drawn_quickly() -> None:
    world = World()
    started = time.process_time()
    frames = torch.stack([world[index][0] for index in range(32)])
    assert time.process_time() - started < 1
    assert frames.shape == (32, 33, 64, 64, 3)
    assert frames.dtype == torch.float32
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_what_is_not_in_the_world_is_said() -> None:
    with pytest.raises(ValueError, match="no colour 'pink'; it has red, green"):
        replace(SCENE, colour="pink")
    with pytest.raises(ValueError, match="no direction 'sideways'"):
        replace(SCENE, direction="sideways")
    with pytest.raises(ValueError, match="expected at least 1, 1 and 16"):
        World(size=8)
    with pytest.raises(ValueError, match="seed is -1"):
        World(seed=-1)


def test_prompts_are_full_captions_all_different_and_the_first_of_more() -> None:
    assert SCENE.caption == "a red circle moving left slowly on a gray background"
    assert replace(SCENE, colour="orange").caption.startswith("an orange circle")
    everything = prompts(432, seed=0)
    assert len(set(everything)) == 432
    assert SCENE.caption in everything
    assert prompts(24, seed=0) == everything[:24]
    assert prompts(24, seed=1) != everything[:24]
    assert prompts(440, seed=0) == everything + everything[:8]


# Words --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path: Path) -> TinyText:
    write_text(tmp_path, seed=0)
    return TinyText(tmp_path / "text.json", tmp_path / "text.safetensors")


def test_every_caption_can_be_read_and_no_two_read_alike(text: TinyText) -> None:
    encoded = torch.cat([text.encode(caption) for caption in prompts(432, seed=0)])
    assert encoded.shape == (432, 10, 64)
    assert text.text_len == TEXT_LEN
    flat = encoded.flatten(1)
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 1
    for _, caption in World(size=16, frames=1, clips=50):  # type: ignore[attr-defined]
        assert text.encode(caption).shape == (1, len(caption.split()), 64)


def test_other_words_for_the_same_read_the_same(text: TinyText) -> None:
    said = text.encode("a purple circle moving left quickly on a gray background")
    assert torch.equal(said, text.encode("The violet ball going leftwards fast, on a grey background."))
    longest = text.encode("The violet ball moves to the left fast, on a grey background.")
    assert longest.shape == (1, TEXT_LEN, 64)
    assert torch.equal(longest[:, 6:], said[:, 4:])
    assert set(ALIASES.values()) <= set(VOCABULARY)
    assert not set(ALIASES) & set(VOCABULARY)


def test_words_are_well_apart_and_padding_is_zero() -> None:
    table = word_table(VOCABULARY)
    assert table.shape == (len(VOCABULARY), 64)
    assert not table[VOCABULARY.index(PAD)].any()
    expected = 64 * torch.eye(len(VOCABULARY))
    expected[VOCABULARY.index(PAD)] = 0
    torch.testing.assert_close(table @ table.T, expected, atol=1e-4, rtol=0)
    assert torch.equal(table, word_table(VOCABULARY))
    assert not torch.equal(table, word_table(VOCABULARY, seed=1))
    with pytest.raises(ValueError, match="3 words do not fit a table 2 wide"):
        word_table(["one", "two", "three"], width=2)


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_text(tmp_path / folder, seed=3)
    for name in ("text.json", "text.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
