"""Videos written by commit 20d3907 still play, say how they were made, and can be made again from what they say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sf_core import Session, tiny
from sf_core.__main__ import main
from sf_core.files.video import read_record

VIDEOS = Path(__file__).parents[1] / "written_by_20d3907" / "videos"
RED = "a red circle moving left quickly on a black background"
BLUE = "a blue square moving up on a white background"
MODEL = "128x4-cf51f1cddd28"  # the fingerprint of the embedded model
EXPECTED: dict[str, tuple[int, dict[str, Any]]] = {  # frames and record
    "first.mp4": (
        21,
        {
            "prompt": RED,
            "seed": 3,
            "chunks": 2,
            "model": MODEL,
            "session": "bec7315285c1c38a93167561ec9854a3",
            "seeds": [3],
            "timeline": "none",
        },
    ),
    "continued.webm": (
        33,
        {
            "prompt": BLUE,
            "seed": 4,
            "chunks": 3,
            "model": MODEL,
            "session": "6597c2951825171b3b2a87033946cc7a",
            "seeds": [3, 4],
            "timeline": "prompt, seed, recache at chunk 2",
        },
    ),
    "killed.mp4": (
        20,
        {
            "prompt": RED,
            "seed": 6,
            "chunks": 1,
            "model": MODEL,
            "session": "8636aad65266e0ce6cb95244ac5ad5ec",
            "frames": 20,
            "fps": 16.0,
        },
    ),
}


def decoded(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_old_video_plays_and_says_how_it_was_made(name: str) -> None:
    frames, record = EXPECTED[name]
    assert decoded(VIDEOS / name).shape == (frames, 64, 64, 3)
    found = read_record(VIDEOS / name)
    assert {key: found.get(key) for key in record} == record


def test_the_record_in_an_old_video_makes_it_again(tmp_path: Path) -> None:
    """The prompt and seed that an old video names give its frames, up to the rounding of another codec version."""
    record = read_record(VIDEOS / "first.mp4")
    arguments = ["--prompt", record["prompt"], "--seed", record["seed"], "--seconds", 1, "--out", tmp_path / "new.mp4"]
    assert main(["generate", *map(str, arguments)]) == 0
    old, new = decoded(VIDEOS / "first.mp4").astype(int), decoded(tmp_path / "new.mp4").astype(int)
    assert old.shape == new.shape
    assert np.abs(old - new).mean() < 2


@pytest.mark.parametrize("name", ["first.mp4", "continued.webm"])
def test_an_old_video_can_be_extended(name: str, tmp_path: Path) -> None:
    arguments = ["--video", VIDEOS / name, "--seconds", 0.5, "--out", tmp_path / "longer.mp4"]
    arguments += ["--save-session", tmp_path / "longer.session"]
    assert main(["generate", *map(str, arguments)]) == 0
    session = Session.load(tmp_path / "longer.session", tiny.load_transformer())
    assert session.chunks == 1
    given = decoded(VIDEOS / name)[-(session.frames - 3) * 4 + 3 :]
    begun = decoded(tmp_path / "longer.mp4")[: len(given)]
    assert np.abs(begun.astype(int) - given.astype(int)).mean() < 12, "the new video begins with the end of the old"


def test_an_old_unfinished_video_is_read_from_its_sidecar(tmp_path: Path) -> None:
    """Without the sidecar, the same file has no record."""
    shutil.copy(VIDEOS / "killed.mp4", tmp_path)
    assert "prompt" not in read_record(tmp_path / "killed.mp4")
    shutil.copy(VIDEOS / "killed.mp4.json", tmp_path)
    assert read_record(tmp_path / "killed.mp4")["prompt"] == RED
