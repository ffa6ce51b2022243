"""The reader of video clips: upright, with square pixels, at one rate and size, frame by frame."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from PIL import Image
from torch import Tensor

from ..byte_units import GIB, format_bytes
from .clip_times import Timed, between, exact_rate, resampled
from .file_names import libav_url

CROP, PAD = "crop", "pad"
FITS = (CROP, PAD)

MAX_CLIP_BYTES = 16 * GIB  # of frames that `read_clip` returns


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
        for picture, end in scaled_frames(container, size, fps):
            if end * frame_bytes > MAX_CLIP_BYTES:
                raise ValueError(
                    f"{path} is too long: {end} frames of {size[1]} x {size[0]} pixels are more than "
                    f"{format_bytes(MAX_CLIP_BYTES)}; cut off its beginning"
                )
            pixels += picture.numpy().tobytes() * (end - count)
            count = end
    if not count:
        raise ValueError(f"{path} has no frame that can be decoded")
    return torch.frombuffer(pixels, dtype=torch.uint8).view(count, *size, 3)


def scaled_frames(
    container: InputContainer,
    size: tuple[int, int],
    fps: float,
    fit: str = CROP,
    span: tuple[Fraction, Fraction] = (Fraction(0), Fraction(0)),
) -> Iterator[tuple[Tensor, int]]:
    """Read a video at one rate and size.

    Args:
        container: The video.
        size: (height, width) in pixels.
        fps: Frames a second of the result: its frame k is the file's frame nearest to ``k / fps`` seconds.
        fit: ``crop`` or ``pad``, see `fitted`.
        span: Second of the video that the result begins at, and its length in seconds; 0: up to the end.

    Yields:
        A frame [height, width, 3] in 8 bits, and how many frames of the result it and those before it fill. A frame
        of a file of a higher rate, which fills none, is left out.
    """
    stream, count = container.streams.video[0], 0
    for frame, end in resampled(between(shown(container), *span), exact_rate(fps)):
        if end > count:
            yield torch.from_numpy(fitted(frame, stream.sample_aspect_ratio, size, fit).copy()), end
            count = end


@contextmanager
def opened(source: Path | io.BytesIO) -> Iterator[InputContainer]:
    """Open a video, a file or what one holds; an error while it is open names the file.

    Raises:
        ValueError: The file has no video stream, or cannot be decoded.
        OSError: The file cannot be read.
    """
    path: Path | str = "the video" if isinstance(source, io.BytesIO) else source
    if isinstance(path, Path) and path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a video in it")
    if isinstance(path, Path) and not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if isinstance(source, io.BytesIO):
            source.seek(0)
        where = libav_url(source) if isinstance(source, Path) else source
        with av.open(where, "r", metadata_errors="replace") as container:
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


def fitted(frame: av.VideoFrame, pixel_aspect: Fraction | None, size: tuple[int, int], fit: str = CROP) -> np.ndarray:
    """Return a frame upright as uint8 [H, W, 3].

    Args:
        frame: A decoded frame.
        pixel_aspect: Width of a stored pixel over its height; None: 1.
        size: Height and width of the result.
        fit: ``crop``: the largest centred crop with the aspect of ``size``, scaled to it. ``pad``: the whole frame,
            scaled into ``size``, between black edges.
    """
    height, width = size
    quarter_turns = round(frame.rotation / 90)
    aspect = float(pixel_aspect or 1)
    aspect = 1 / aspect if quarter_turns % 2 else aspect
    picture = Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns))
    wide = picture.width * aspect
    if fit == PAD:
        return np.asarray(_padded(picture, wide, size))
    scale = max(height / picture.height, width / wide)
    x, y = (picture.width - width / scale / aspect) / 2, (picture.height - height / scale) / 2
    box = (max(0.0, x), max(0.0, y), min(picture.width - x, picture.width), min(picture.height - y, picture.height))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box))


def _padded(picture: Image.Image, wide: float, size: tuple[int, int]) -> Image.Image:
    """Scale a picture, which is ``wide`` square pixels wide, into ``size``, between black edges."""
    height, width = size
    scale = min(height / picture.height, width / wide)
    inside = max(1, round(wide * scale)), max(1, round(picture.height * scale))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(
        picture.resize(inside, Image.Resampling.BICUBIC), ((width - inside[0]) // 2, (height - inside[1]) // 2)
    )
    return canvas
