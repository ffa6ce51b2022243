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
_NAMED = 5  # how many files an error about captions names
_PER = 1001  # rates are fractions over at most this, so that 29.97 means 30000/1001 and times are exact

Timed = tuple[Any, Fraction, Fraction]  # a frame or packet, when it is shown and for how long, in seconds


class VideoFolder:
    """The beginning of every video below ``folder``: ``frames`` frames at ``fps`` a second, fitted into ``size``.

    Item i is (frames [T, H, W, 3] float32 in 0..1, caption). The caption is the text in the ``.txt`` file of the same
    name beside the video. Whatever the rate of a file, constant or not, a frame of a clip is the one that the file
    shows nearest to its time. Pictures are turned as the file says, scaled, and cropped round their centre.
    ``files`` and ``captions`` are in the order of the files' names; hidden files do not count.

    size: height and width in pixels.
    Raises ValueError for settings that make no clip, for a folder without videos, and for a missing, empty or
    unreadable caption.
    """

    def __init__(self, folder: Path, frames: int, size: tuple[int, int], fps: float) -> None:
        self.folder = Path(folder)
        self.frames = frames
        self.size = size
        self._rate = Fraction(fps).limit_denominator(_PER) if math.isfinite(fps) else Fraction(0)
        if min(frames, *size) < 1 or self._rate <= 0:
            raise ValueError(
                f"clips of {frames} frames, {size[1]} x {size[0]} pixels, {fps} a second: each number must be above 0"
            )
        self.files = _videos(self.folder)
        self.captions = _captions(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """Clip ``index`` and its caption. Raises ValueError for a video that is too short or cannot be decoded."""
        return self._clip(self.files[index]), self.captions[index]

    def check(self) -> None:
        """Go over all videos before anything expensive starts; decodes one frame of each.

        Raises ValueError naming every video that is too short or cannot be decoded.
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
        """Names these clips: a hash of the settings and of each file's name, size and caption, not of its pictures."""
        facts: list[Any] = [self.frames, self.size, self._rate]
        for path, caption in zip(self.files, self.captions, strict=True):
            facts.append((path.relative_to(self.folder).as_posix(), path.stat().st_size, caption))
        return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()

    def _clip(self, path: Path) -> Tensor:
        pictures: list[np.ndarray] = []
        with _opened(path) as container:
            for frame, count in _resampled(_shown(container), self._rate):
                missing = min(count, self.frames) - len(pictures)
                if missing > 0:  # else all of the clip's moments so far have their frame: the file has a higher rate
                    pictures += [_fitted(frame, container.streams.video[0].sample_aspect_ratio, self.size)] * missing
                if len(pictures) == self.frames:
                    return torch.from_numpy(np.stack(pictures)).float() / 255
        raise ValueError(self._too_short(path, len(pictures)))

    def _check(self, path: Path) -> None:
        """Decode one frame, then look at times only, and only as far as the clip goes."""
        with _opened(path) as container:
            if next(_shown(container), None) is None:
                raise ValueError(f"{path} has no frame that can be decoded")
        packets: list[Timed] = []
        with _opened(path) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.pts is None or packet.is_discard:
                    continue  # the end of the stream; what is decoded and not shown
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
    found = sorted(path for path in named if path.is_file())
    if not found:
        raise ValueError(f"there are no videos in {folder}; looked for {', '.join(ENDINGS)}, in its folders too")
    return found


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
    """A file with pictures in it; what goes wrong while it is open names it."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no pictures in it")
            container.streams.video[0].thread_type = "AUTO"
            yield container
    except av.FFmpegError as error:
        raise ValueError(f"{path} cannot be decoded: {error.strerror or error}") from error


def _shown(container: InputContainer) -> Iterator[Timed]:
    """The frames of a video in the order in which they are shown."""
    stream = container.streams.video[0]
    # an AVI holds no times, and what is made up for it is wrong for frames that were stored in another order
    rate = stream.average_rate if container.format.name == "avi" else None
    for number, frame in enumerate(container.decode(stream)):
        if rate:
            yield frame, number / rate, 1 / rate
        elif frame.pts is not None and frame.time_base:
            yield frame, frame.pts * frame.time_base, (frame.duration or 0) * frame.time_base


def _resampled(shown: Iterable[Timed], rate: Fraction) -> Iterator[tuple[Any, int]]:
    """Each frame with a count: so many frames of a clip at ``rate`` show it or one before it.

    Frame k of a clip belongs ``k / rate`` after the first of ``shown``, and is the one nearest to that; the earlier
    of two. The last one stays as long as the file says, or else as long as the one before it did; how many it is then
    for is rounded, since some files have their times in whole milliseconds.
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
    """A frame upright as [H, W, 3] bytes: the largest centred part that has the shape of ``size``, scaled to it."""
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
