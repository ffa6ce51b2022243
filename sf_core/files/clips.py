"""The reader of video clips: upright, with square pixels, at one rate and size, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.container import InputContainer
from PIL import Image
from torch import Tensor

from ..byte_units import GIB, format_bytes
from .file_names import libav_url

Timed = tuple[Any, Fraction, Fraction]  # a frame or packet, its presentation time and its duration, in seconds

MAX_CLIP_BYTES = 16 * GIB  # of frames that `read_clip` returns
_MAX_DENOMINATOR = 1001  # of frame rates, so that 29.97 means 30000/1001 and times are exact


def exact_rate(fps: float) -> Fraction:
    """Frames a second as a fraction; 0 for what is no number."""
    return Fraction(fps).limit_denominator(_MAX_DENOMINATOR) if math.isfinite(fps) else Fraction(0)


def read_clip(path: Path, size: tuple[int, int], fps: float) -> Tensor:
    """Read a whole clip. Each frame is scaled as soon as it is decoded, so only scaled frames are in memory.

    Args:
        path: A video file of any rate, constant or not.
        size: (height, width) in pixels that each frame fills, cropped around its centre.
        fps: Frames per second of the result: its frame k is the file's frame nearest to ``k / fps`` seconds.

    Returns:
        Frames [T, height, width, 3] in 8 bits.

    Raises:
        ValueError: The file is no video, cannot be decoded or is too long; the message names it.
        OSError: The file cannot be read.
    """
    pixels, count, frame_bytes = bytearray(), 0, size[0] * size[1] * 3
    with opened(path) as container:
        for frame, end in resampled(shown(container), exact_rate(fps)):
            if end * frame_bytes > MAX_CLIP_BYTES:
                raise ValueError(
                    f"{path} is too long: {end} frames of {size[1]} x {size[0]} pixels are more than "
                    f"{format_bytes(MAX_CLIP_BYTES)}; cut off its beginning"
                )
            if end > count:  # else the file has a higher rate, and the clip needs no frame yet
                picture = fitted(frame, container.streams.video[0].sample_aspect_ratio, size)
                pixels += picture.tobytes() * (end - count)
                count = end
    if not count:
        raise ValueError(f"{path} has no frame that can be decoded")
    return torch.frombuffer(pixels, dtype=torch.uint8).view(count, *size, 3)


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a video; an error while it is open names the file.

    Raises:
        ValueError: The file has no video stream, or cannot be decoded.
        OSError: The file cannot be read.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a video in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with av.open(libav_url(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no pictures in it, only sound perhaps; expected a video")
            container.streams.video[0].thread_type = "AUTO"
            yield container
    except av.FFmpegError as error:
        raise ValueError(f"{path} cannot be decoded as a video: {error.strerror or error}") from error


def shown(container: InputContainer) -> Iterator[Timed]:
    """Yield the frames of a video in presentation order."""
    stream = container.streams.video[0]
    # an AVI has no times, and FFmpeg's estimate is wrong for frames that were stored in another order
    rate = stream.average_rate if container.format.name == "avi" else None
    for number, frame in enumerate(container.decode(stream)):
        if number == 0 and frame.pts is None:  # so has a bare stream (.h264, .hevc), which says its rate alone
            rate = rate or stream.guessed_rate or stream.average_rate
        if rate:
            yield frame, number / rate, 1 / rate
        elif frame.pts is not None and frame.time_base:
            yield frame, frame.pts * frame.time_base, (frame.duration or 0) * frame.time_base


def resampled(timed: Iterable[Timed], rate: Fraction) -> Iterator[tuple[Any, int]]:
    """Yield each frame with the number of clip frames, at ``rate``, that it or an earlier frame fills.

    Frame k of the clip is at ``k / rate`` after the first frame. It is the frame of ``timed`` that is nearest in time,
    the earlier of two. The last frame lasts as long as the file says, or else as long as the one before it. Its count
    is rounded, since some files have times in whole milliseconds.
    """
    frame, start, at, before, duration = None, None, Fraction(0), Fraction(0), Fraction(0)
    for following, time, lasts in timed:
        start = time if start is None else start
        if frame is not None:
            yield frame, math.floor((at + time - start) / 2 * rate) + 1
        frame, before, at, duration = following, at, time - start, lasts
    if frame is not None:
        end = at + (duration or at - before)
        yield frame, max(math.floor(at * rate) + 1, math.floor(end * rate + Fraction(1, 2)))


def fitted(frame: av.VideoFrame, pixel_aspect: Fraction | None, size: tuple[int, int]) -> np.ndarray:
    """Return a frame upright as uint8 [H, W, 3]: the largest centred crop with the aspect of ``size``, scaled to it."""
    height, width = size
    quarter_turns = round(frame.rotation / 90)
    aspect = float(pixel_aspect or 1)  # width of a stored pixel over its height
    aspect = 1 / aspect if quarter_turns % 2 else aspect
    picture = Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns))
    wide = picture.width * aspect
    scale = max(height / picture.height, width / wide)
    x, y = (picture.width - width / scale / aspect) / 2, (picture.height - height / scale) / 2
    box = (max(0.0, x), max(0.0, y), min(picture.width - x, picture.width), min(picture.height - y, picture.height))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box))
