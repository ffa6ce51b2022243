"""A clip is read as it is to be shown: upright, in its own shape, at its own speed, in the memory of its result."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from sf_core.files import clips
from sf_core.files.clips import read_clip


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float],
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write frames [H, W, 3] that are shown at ``times`` seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": "10"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if pixel_aspect:
            stream.sample_aspect_ratio = pixel_aspect
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def grey(count: int) -> list[np.ndarray]:
    """Plain frames, 32 x 48; `brightness` reads their numbers back."""
    return [np.full((32, 48, 3), 20 + 5 * i, np.uint8) for i in range(count)]


def brightness(clip: torch.Tensor) -> list[int]:
    return ((clip.float().mean((1, 2, 3)) - 20) / 5).round().int().tolist()


def corner(height: int, width: int) -> np.ndarray:
    """Bright in the upper left quarter."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 250
    return pixels


def turn(path: Path, matrix: tuple[int, ...]) -> None:
    """Write a display matrix into the track header of an MP4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 40 + (12 if data[at] else 0)  # version 1 has longer times
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


ONE = 1 << 16
TURNS = {  # a quarter clockwise, half, a quarter anticlockwise: the matrix, and what it does to an array
    1: ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), -1),
    2: ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), 2),
    3: ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), 1),
}


@pytest.mark.parametrize("quarters", TURNS)
def test_a_phones_clip_is_upright(quarters: int, tmp_path: Path) -> None:
    matrix, turns = TURNS[quarters]
    path = write(tmp_path / "c.mp4", [corner(32, 48)] * 2, [0, 0.1])
    turn(path, matrix)
    expected = np.rot90(corner(32, 48), turns)
    found = read_clip(path, expected.shape[:2], 10)[0].numpy()
    assert np.abs(found.astype(int) - expected).mean() < 6


def test_wide_pixels_are_shown_wide(tmp_path: Path) -> None:
    """A square of stored pixels, twice as wide as high when shown, fills a wide frame without a crop."""
    path = write(tmp_path / "c.mp4", [corner(32, 32)] * 2, [0, 0.1], pixel_aspect=Fraction(2, 1))
    found = read_clip(path, (32, 64), 10)[0].numpy()
    assert np.abs(found.astype(int) - corner(32, 64)).mean() < 8


@pytest.mark.parametrize(
    ("rate", "count", "expected"),
    [(30, 31, list(range(0, 31, 3))), (10, 11, list(range(11))), (5, 6, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])],
)
def test_a_clip_keeps_its_speed_whatever_its_rate(rate: int, count: int, expected: list[int], tmp_path: Path) -> None:
    path = write(tmp_path / "c.mp4", grey(count), [i / rate for i in range(count)])
    found = brightness(read_clip(path, (32, 48), 10))
    assert found[: len(expected)] == expected or all(  # halves between two frames may go either way
        abs(a - b) <= 1 for a, b in zip(found, expected, strict=False)
    )
    assert abs(len(found) / 10 - count / rate) <= 0.11


def test_a_clip_of_uneven_times_is_read_by_its_times(tmp_path: Path) -> None:
    path = write(tmp_path / "c.mp4", grey(7), [0, 0.03, 0.04, 0.1, 0.11, 0.3, 0.4])
    assert brightness(read_clip(path, (32, 48), 10))[:5] == [0, 3, 4, 5, 6]


@pytest.mark.parametrize(("codec", "ending"), [("libx264", "h264"), ("mjpeg", "mjpeg")])
def test_a_stream_without_a_container_is_read_at_its_rate(codec: str, ending: str, tmp_path: Path) -> None:
    """As cameras write them; such a file has no times."""
    rate = 25 if ending == "mjpeg" else 10  # which is no number in Motion JPEG: players take 25
    with av.open(str(tmp_path / f"c.{ending}"), "w", format=ending) as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p" if ending == "mjpeg" else "yuv420p"
        for pixels in grey(10) * (rate // 5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    assert len(read_clip(tmp_path / f"c.{ending}", (32, 48), 10)) == 20


def test_a_large_clip_takes_the_memory_of_its_scaled_frames(tmp_path: Path) -> None:
    large = np.zeros((480, 640, 3), np.uint8)
    path = write(tmp_path / "c.mp4", [large] * 40, [i / 20 for i in range(40)])
    tracemalloc.start()
    clip = read_clip(path, (16, 16), 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clip.shape == (40, 16, 16, 3)
    assert clip.dtype == torch.uint8
    assert peak < 8 * large.nbytes  # a few frames that are being scaled, not 40


def test_a_clip_longer_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "c.mp4", grey(3), [0, 0.1, 3600])  # with a gap of an hour in its times
    monkeypatch.setattr(clips, "MAX_CLIP_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"c\.mp4 is too long: .* more than 1\.0 MiB; cut off its beginning"):
        read_clip(path, (32, 48), 16)


def sound_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        assert isinstance(stream, av.AudioStream)
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            frame.rate, frame.pts = 44100, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("kind", ["sound", "cut", "empty", "text", "folder"])
def test_what_is_no_clip_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    match kind:
        case "sound":
            sound_only(path)
        case "cut":
            data = write(path, grey(9), [i / 10 for i in range(9)]).read_bytes()
            path.write_bytes(data[: len(data) // 2])
        case "folder":
            path.mkdir()
        case _:
            path.write_bytes(b"" if kind == "empty" else b"not a video at all")
    with pytest.raises((ValueError, OSError), match=r"c\.mp4 (is a folder|has no|cannot be decoded)"):
        read_clip(path, (32, 48), 16)


@pytest.mark.parametrize("name", ["12:30.mp4", "concat:x.mp4", "scene %03d: red.mp4"])
def test_a_name_like_a_protocol_is_the_name_of_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "c.mp4", grey(3), [0, 0.1, 0.2]).rename(tmp_path / name)
    assert len(read_clip(Path(name), (32, 48), 10)) == 3
