"""A run that is killed at any moment leaves a video that plays and sessions that load."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from torch import Tensor

from sf_core import Session, tiny
from sf_core.__main__ import main
from sf_core.files.video import VideoWriter, sidecar_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("SF_KILLS", "4"))  # the thorough run makes 30
ROOT = Path(__file__).parents[2]

# Streams without end, as fast as it can: writes every chunk, saves the session after every second one.
ENDLESS = """
import sys, torch
torch.set_num_threads(1)
import sf_core
from sf_core import tiny
from sf_core.files.video import VideoWriter
video, saved = sys.argv[1:]
session = sf_core.Session.start(tiny.load_transformer(), tiny.load_text().encode(tiny.PROMPT))
writer = VideoWriter(video, 16, record={"prompt": tiny.PROMPT})
for event in sf_core.stream(session, tiny.load_vae().stream_decoder()):
    writer.write(event.frames[0])
    if writer.frames == event.frames.shape[1]:  # the first chunk
        print("ready", flush=True)
    if event.chunk % 2:
        event.session.save(saved)
"""


@pytest.mark.parametrize("seed", range(KILLS))
def test_after_a_kill_the_video_plays_and_the_session_loads(seed: int, tmp_path: Path) -> None:
    video, saved = tmp_path / ("v.webm" if seed % 4 == 3 else "v.mp4"), tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(video), str(saved)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    moment = random.Random(seed).uniform(0, 2.2)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with av.open(str(video)) as container:
        playable = sum(1 for _ in container.decode(video=0))
    promised = json.loads(sidecar_of(video).read_text())["frames"]
    assert playable >= promised > 0
    if saved.exists():
        assert Session.load(saved, tiny.load_transformer()).chunks % 2 == 0


def test_sigterm_ends_a_video_as_ctrl_c_does(tmp_path: Path) -> None:
    """Such as of a container that is stopped: the video plays, and the session goes on from its end."""
    video, saved = tmp_path / "v.mp4", tmp_path / "s"
    command = [sys.executable, "-m", "sf_core", "generate", "--seconds", "3600"]
    command += ["--out", str(video), "--save-session", str(saved)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    sidecar = sidecar_of(video)
    wait_until(lambda: sidecar.exists() and json.loads(sidecar.read_text())["frames"], "the first chunk is written")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode in (0, 130), said
    assert b"interrupted" in said
    with av.open(str(video)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    session = Session.load(saved, tiny.load_transformer())
    assert frames >= 1 + 4 * (session.frames - 1) > 0
    assert not sidecar.exists()


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_chunk_that_is_in_the_video_is_in_the_session_whenever_the_interrupt_comes(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python raises it between two instructions: here, when the frames are written and `write` has not returned."""
    write, written = VideoWriter.write, list[int]()

    def interrupted(writer: VideoWriter, frames: Tensor) -> None:
        write(writer, frames)
        written.append(writer.frames)
        if len(written) == chunk:
            raise KeyboardInterrupt

    monkeypatch.setattr(VideoWriter, "write", interrupted)
    video, saved = tmp_path / "v.mp4", tmp_path / "s"
    main(["generate", "--seconds", "5", "--out", str(video), "--save-session", str(saved)])
    session = Session.load(saved, tiny.load_transformer())
    assert session.chunks == chunk
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == written[-1] == 1 + 4 * (session.frames - 1)
