"""The shipped tiny model makes another thing of a clip, on the clip's path: what docs/python.md says of it."""

from __future__ import annotations

import pytest
import torch

import sf_core
from benchmarks.tiny_world.observe import observe
from benchmarks.tiny_world.scorer import judge
from sf_core import tiny
from sf_core.tiny.world import Scene, wrapped

pytestmark = pytest.mark.slow

FRAMES = 33
STRENGTH = 0.8  # of the schedule ``repeated``
PATHS = [("right", "slowly", (20.0, 32.0)), ("left", "slowly", (44.0, 28.0)), ("up", "slowly", (30.0, 44.0))]
PATHS += [("down", "quickly", (34.0, 20.0)), ("right", "quickly", (16.0, 36.0)), ("up", "quickly", (40.0, 46.0))]


def test_a_red_circle_becomes_a_blue_square_that_moves_as_it_does() -> None:
    """On white, where each frame is right; within 3 of 64 pixels of the circle. One clip of the six may fail."""
    model, vae, encode = tiny.load_transformer(), tiny.load_vae(), tiny.load_text().encode
    right = 0
    for seed, (direction, speed, start) in enumerate(PATHS):
        scene = Scene("red", "circle", direction, speed, "white", start, 12.5)
        frames = sf_core.ClipFrames(sf_core.PictureClip(scene.render(FRAMES)), "stop")
        source = sf_core.VideoSource(frames, vae, STRENGTH, "repeated")
        session = sf_core.Session.start(model, encode("a blue square"), seed=seed)
        events = list(sf_core.stream(session, vae.stream_decoder(), source=source))
        seen = observe(torch.cat([event.frames[0] for event in events]))
        distance = wrapped(seen.centre - scene.centres(FRAMES), 64).norm(dim=1)
        on_path = float(((distance <= 3) & seen.found).float().mean())
        right += on_path >= 0.9 and judge(seen, "a blue square on a white background").frames_correct >= 0.9
    assert right >= len(PATHS) - 1
