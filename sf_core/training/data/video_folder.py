"""A folder of videos with captions, as clips of one length, size and rate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
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

ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif")
_NAMED = 5  # largest number of files that an error about captions names
_MAX_DENOMINATOR = 1001  # of frame rates, so that 29.97 means 30000/1001 and times are exact

Timed = tuple[Any, Fraction, Fraction]  # a frame or packet, its presentation time and its duration, in seconds


class VideoFolder:
    """The first ``frames`` frames of every video below a folder, at one rate and size, with captions.

    Item i is (frames [T, H, W, 3] float32 in 0..1, caption). The caption is the text of the ``.txt`` file with the same
    name in the same folder. The rate of a file may be any, constant or not: a frame of a clip is the file's frame that
    is nearest in time. Pictures are rotated by the file's metadata, scaled, and cropped around their centre.

    Args:
        folder: The folder; its subfolders are searched too, hidden files are not.
        frames: Frames per clip.
        size: (height, width) in pixels.
        fps: Frames per second of the clips.

    Attributes:
        files: The videos, sorted by name.
        captions: Their captions.

    Raises:
        ValueError: For settings that give no clip, for a folder without videos, and for a missing, empty or unreadable
            caption.
    """

    def __init__(self, folder: Path, frames: int, size: tuple[int, int], fps: float) -> None:
        self.folder = Path(folder)
        self.frames = frames
        self.size = size
        self._rate = Fraction(fps).limit_denominator(_MAX_DENOMINATOR) if math.isfinite(fps) else Fraction(0)
        if min(frames, *size) < 1 or self._rate <= 0:
            raise ValueError(
                f"clips of {frames} frames, {size[1]} x {size[0]} pixels, {fps} a second: each number must be above 0"
            )
        self.files = _videos(self.folder)
        self.captions = _captions(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """Return clip ``index`` and its caption. Raises ValueError for one that is too short or cannot be decoded."""
        return self._clip(self.files[index]), self.captions[index]

    def check(self) -> None:
        """Check all videos before the training starts; decodes one frame of each.

        Raises:
            ValueError: Naming every video that is too short or cannot be decoded.
        """
        problems = []
        for path in self.files:
            try:
                self._check(path)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            listed = "\n".join(problems)
            raise ValueError(
                f"{len(problems)} of the {len(self)} videos in {self.folder} cannot be used; replace them or take them "
                f"out:\n{listed}"
            )

    def fingerprint(self) -> str:
        """Return a fingerprint of the settings and of each file's name, size and caption, but not of its pictures."""
        content: list[Any] = [self.frames, self.size, self._rate]
        for path, caption in zip(self.files, self.captions, strict=True):
            content.append((path.relative_to(self.folder).as_posix(), path.stat().st_size, caption))
        return hashlib.blake2b(repr(content).encode(), digest_size=8).hexdigest()

    def _clip(self, path: Path) -> Tensor:
        pictures: list[np.ndarray] = []
        with _opened(path) as container:
            for frame, count in _resampled(_shown(container), self._rate):
                missing = min(count, self.frames) - len(pictures)
                if missing > 0:  # else the file has a higher rate, and the clip needs no frame yet
                    pictures += [_fitted(frame, container.streams.video[0].sample_aspect_ratio, self.size)] * missing
                if len(pictures) == self.frames:
                    return torch.from_numpy(np.stack(pictures)).float() / 255
        raise ValueError(self._too_short(path, len(pictures)))

    def _check(self, path: Path) -> None:
        """Decode one frame, then read the packets' times, only as far as the clip goes."""
        with _opened(path) as container:
            if next(_shown(container), None) is None:
                raise ValueError(f"{path} has no frame that can be decoded")
        packets: list[Timed] = []
        with _opened(path) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.pts is None or packet.is_discard:
                    continue  # the end of the stream, or a frame that is decoded and not shown
                packets.append((packet, packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base))
                if (packets[-1][1] - packets[0][1]) * self._rate > self.frames:
                    return
        in_order = sorted(packets, key=lambda timed: timed[1])
        count = max((count for _, count in _resampled(in_order, self._rate)), default=0)
        if count < self.frames:
            raise ValueError(self._too_short(path, count))

    def _too_short(self, path: Path, count: int) -> str:
        return (
            f"{path} is too short: {float(count / self._rate):.2f} s, which is {count} frames at "
            f"{float(self._rate):g} a second; a clip has {self.frames}, {float(self.frames / self._rate):.2f} s"
        )


def _videos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; expected one with videos and their captions")
    named = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.name[0] != ".")
    videos = sorted(path for path in named if path.is_file())
    if not videos:
        raise ValueError(f"there are no videos in {folder}; looked for {', '.join(ENDINGS)}, in its folders too")
    return videos


def _captions(videos: Sequence[Path]) -> list[str]:
    missing = [path for path in videos if not path.with_suffix(".txt").is_file()]
    if missing:
        more = ", ..." if len(missing) > _NAMED else ""
        raise ValueError(
            f"{len(missing)} of {len(videos)} videos have no caption, a text file of the same name beside them "
            f"({missing[0].with_suffix('.txt').name}): {', '.join(map(str, missing[:_NAMED]))}{more}"
        )
    return [_caption(path.with_suffix(".txt")) for path in videos]


def _caption(path: Path) -> str:
    try:
        text = " ".join(path.read_text("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8 text") from error
    if not text:
        raise ValueError(f"{path} is empty; expected the caption of the video beside it")
    return text


# Decoding -----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Open a video; an error while it is open names the file."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no pictures in it")
            container.streams.video[0].thread_type = "AUTO"
            yield container
    except av.FFmpegError as error:
        raise ValueError(f"{path} cannot be decoded: {error.strerror or error}") from error


def _shown(container: InputContainer) -> Iterator[Timed]:
    """Yield the frames of a video in presentation order."""
    stream = container.streams.video[0]
    # an AVI has no times, and FFmpeg's estimate is wrong for frames that were stored in another order
    rate = stream.average_rate if container.format.name == "avi" else None
    for number, frame in enumerate(container.decode(stream)):
        if rate:
            yield frame, number / rate, 1 / rate
        elif frame.pts is not None and frame.time_base:
            yield frame, frame.pts * frame.time_base, (frame.duration or 0) * frame.time_base


def _resampled(shown: Iterable[Timed], rate: Fraction) -> Iterator[tuple[Any, int]]:
    """Yield each frame with the number of clip frames, at ``rate``, that it or an earlier frame fills.

    Frame k of the clip is at ``k / rate`` after the first frame. It is the frame of ``shown`` that is nearest in time,
    the earlier of two. The last frame lasts as long as the file says, or else as long as the one before it. Its count
    is rounded, since some files have times in whole milliseconds.
    """
    frame, start, at, before, duration = None, None, Fraction(0), Fraction(0), Fraction(0)
    for following, time, lasts in shown:
        start = time if start is None else start
        if frame is not None:
            yield frame, math.floor((at + time - start) / 2 * rate) + 1
        frame, before, at, duration = following, at, time - start, lasts
    if frame is not None:
        end = at + (duration or at - before)
        yield frame, max(math.floor(at * rate) + 1, math.floor(end * rate + Fraction(1, 2)))


def _fitted(frame: av.VideoFrame, pixel_aspect: Fraction | None, size: tuple[int, int]) -> np.ndarray:
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
