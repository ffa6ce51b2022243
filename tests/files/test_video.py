"""Video files play, whenever their writing ends, and say how they were made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from sf_core.files.video import VideoWriter, read_record, sidecar_of

ENDINGS = ["mp4", "webm"]
RECORD = {"workflow": {"nodes": [1, 2]}, "prompt": "a red circle", "seeds": [1, 2]}


def clip(frames: int, height: int = 32, width: int = 48) -> Tensor:
    """A white bar that moves to the right on a blue ground."""
    made = torch.zeros(frames, height, width, 3)
    made[..., 2] = 0.6
    for i in range(frames):
        made[i, :, 2 * i % width : 2 * i % width + 8] = 1.0
    return made


def decoded(path: Path) -> Tensor:
    with av.open(str(path)) as container:
        return (
            torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])).float() / 255
        )


@pytest.mark.parametrize("ending", ENDINGS)
def test_frames_come_back(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"folder/v.{ending}"
    with VideoWriter(path, fps=16) as writer:
        for part in clip(20).split(3):
            writer.write(part)
    assert writer.frames == 20
    assert float((decoded(path) - clip(20)).abs().mean()) < 0.06
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == 16
        assert stream.pix_fmt == "yuv420p"


@pytest.mark.parametrize("size", [(32, 48), (720, 1280)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_player_need_not_guess_the_colours(ending: str, size: tuple[int, int], tmp_path: Path) -> None:
    """The file names its colour space, BT.709 at any size, and its numbers are of that space."""
    frames = torch.empty(1, *size, 3)
    frames[:] = torch.tensor([200, 40, 90]) / 255
    with VideoWriter(tmp_path / f"video.{ending}", fps=16, crf=4) as writer:
        writer.write(frames)
    with av.open(str(writer.path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_range) == (1, 1)
        if ending == "mp4":  # VP9 names one number for all three
            assert (codec.color_primaries, codec.color_trc) == (1, 1)
        luma = next(container.decode(video=0)).to_ndarray(format="yuv420p")[0, 0]
    expected = 16 + 219 * (0.2126 * 200 + 0.7152 * 40 + 0.0722 * 90) / 255
    assert abs(float(luma) - expected) <= 2


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_record_is_in_the_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"v.{ending}"
    with VideoWriter(path, 16, record=RECORD) as writer:
        writer.write(clip(5))
        assert json.loads(sidecar_of(path).read_text())["workflow"] == RECORD["workflow"]
    found = read_record(path)
    assert {key: found[key] for key in RECORD} == RECORD
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_whose_writing_was_cut_off_plays_as_far_as_the_sidecar_says(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"v.{ending}"
    writer = VideoWriter(path, 16, record=RECORD)
    for part in clip(12).split(3):
        writer.write(part)
        copy = tmp_path / f"copy.{ending}"
        shutil.copy(path, copy)
        sidecar = json.loads(sidecar_of(path).read_text())
        assert len(decoded(copy)) >= sidecar["frames"] >= writer.frames - 1
        assert read_record(path)["prompt"] == "a red circle"
    writer.abandon()


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    for ending in ENDINGS:
        files = []
        for name in ("a", "b"):
            path = tmp_path / f"{name}.{ending}"
            with VideoWriter(path, 16) as writer:
                writer.write(clip(20))
            files.append(path.read_bytes())
        assert files[0] == files[1]


def test_odd_sizes_keep_their_colours_whole(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 16) as writer:
        writer.write(clip(5, 31, 47))
    assert decoded(path).shape == (5, 31, 47, 3)


def test_quality_and_pixel_format_are_the_callers(tmp_path: Path) -> None:
    noise = torch.rand(10, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    sizes = {}
    for crf in (10, 40):
        with VideoWriter(tmp_path / f"{crf}.mp4", 16, crf=crf, pixel_format="yuv444p") as writer:
            writer.write(noise)
        sizes[crf] = (tmp_path / f"{crf}.mp4").stat().st_size
    assert sizes[10] > 2 * sizes[40]
    with av.open(str(tmp_path / "10.mp4")) as container:
        assert container.streams.video[0].pix_fmt == "yuv444p"


def test_another_ending_or_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"videos are written as .mp4 or .webm, not .avi"):
        VideoWriter(tmp_path / "v.avi", 16)
    with VideoWriter(tmp_path / "v.mp4", 16) as writer:
        writer.write(clip(2))
        with pytest.raises(ValueError, match="a frame of 16 x 16 does not fit a video of 48 x 32"):
            writer.write(torch.zeros(1, 16, 16, 3))
    assert len(decoded(tmp_path / "v.mp4")) == 2


class FullDisk:
    """Stands for a file on a disk that has become full."""

    def __init__(self, file: object) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def write_until_full(path: Path) -> None:
    with VideoWriter(path, 16) as writer:
        writer.write(clip(6))
        writer._file._file = FullDisk(writer._file._file)  # type: ignore[assignment]
        writer.write(clip(3))


def test_a_full_disk_is_a_clear_error_and_the_file_plays(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with pytest.raises(
        OSError, match=r"cannot write .*v.mp4: No space left on device. Of its 6 frames the first 5 are in.* play"
    ):
        write_until_full(path)
    assert len(decoded(path)) == 5
    assert sidecar_of(path).exists()


def test_an_older_video_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    """A run that fails before its first frame, is killed, or fills the disk does not touch it."""
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 16) as writer:
        writer.write(clip(9))
    older = path.read_bytes()
    with pytest.raises(FloatingPointError), VideoWriter(path, 16):
        raise FloatingPointError
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [older]
    killed = VideoWriter(path, 16)
    killed.write(clip(5))
    killed.abandon()
    assert path.read_bytes() == older
    assert len(decoded(tmp_path / "v.unfinished.mp4")) >= 4
    with pytest.raises(OSError, match=r"the first 5 are in v.unfinished-2.mp4 and play"):
        write_until_full(path)
    assert path.read_bytes() == older
    with VideoWriter(path, 16) as writer:
        writer.write(clip(3))
    assert len(decoded(path)) == 3
    assert not (tmp_path / "v.unfinished-3.mp4").exists()


def test_a_video_that_cannot_be_written_is_refused_before_its_first_frame(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file is a file, not a folder. Name another folder"):
        VideoWriter(tmp_path / "file" / "v.mp4", 16)


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 16):
        assert not list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_video_that_is_removed_while_it_grows_is_said_to_be_gone(tmp_path: Path) -> None:
    path = tmp_path / "temp" / "v.mp4"
    writer = VideoWriter(path, 16)
    writer.write(clip(3))
    shutil.rmtree(path.parent)
    with pytest.raises(OSError, match="The file was removed while it was written; make the video again"):
        writer.write(clip(3))


def test_what_is_no_video_is_said(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("hello")
    with pytest.raises(ValueError, match="is not a video"):
        read_record(tmp_path / "v.mp4")
