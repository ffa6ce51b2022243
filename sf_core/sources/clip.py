"""Clips as a stream of frames, read as they are needed, and what follows their end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..files.clip_times import exact_rate, resampled
from ..ranges import FPS, Range

RATE = Range(0.01, 1000.0)  # pictures a second
AT_END = ("hold", "loop", "stop")


class Clip(Protocol):
    """A video at the session's rate and size."""

    def frames(self) -> Iterator[Tensor]:
        """Yield its frames [H, W, 3], in 0..1 or in 8 bits, from the first one; anew at each call."""


@dataclass(frozen=True, eq=False)
class PictureClip:
    """Pictures in memory.

    Attributes:
        pictures: The pictures [H, W, 3], in 0..1 or in 8 bits, which can be gone through again and again.
        rate: How many are shown a second; None: as many as the session shows.
        fps: Frames a second of the session.

    Raises:
        ValueError: There is no such rate.
    """

    pictures: Iterable[Tensor]
    rate: float | None = None
    fps: float = 16

    def __post_init__(self) -> None:
        if self.rate is not None:
            RATE.check("the rate of the pictures", self.rate)
        FPS.check("fps", self.fps)

    def frames(self) -> Iterator[Tensor]:
        """See `Clip.frames`."""
        if self.rate is None:
            yield from self.pictures
            return
        lasts = 1 / exact_rate(self.rate)
        timed = ((picture, number * lasts, lasts) for number, picture in enumerate(self.pictures))
        yield from repeated(resampled(timed, exact_rate(self.fps)))


def repeated(counted: Iterator[tuple[Tensor, int]]) -> Iterator[Tensor]:
    """Yield each frame as often as the clip has it, given the number of frames up to its end."""
    count = 0
    for frame, end in counted:
        for _ in range(count, end):
            yield frame
        count = max(count, end)


class ClipFrames:
    """The frames of a clip, one after the other, and those behind its end.

    Args:
        clip: The clip.
        at_end: ``hold`` repeats its last frame, ``loop`` begins it again. ``stop`` holds it for the rest of a chunk,
            and then the source is over.

    Attributes:
        length: Number of frames of the clip, once its end has been read; None before that.

    Raises:
        ValueError: There is no such end, or the clip has no frames.
    """

    live = False

    def __init__(self, clip: Clip, at_end: str = "hold") -> None:
        if at_end not in AT_END:
            raise ValueError(f"at_end is {at_end!r}; expected one of {', '.join(AT_END)}")
        self._clip, self._at_end = clip, at_end
        self.length: int | None = None
        self.restart()

    def restart(self) -> None:
        """Return to the first frame."""
        self._frames = self._clip.frames()
        self._read = 0
        self._last: Tensor | None = None
        self._next: Tensor | None = next(self._frames, None)
        if self._next is None:
            raise ValueError("the source has no frames: give it one picture or more")

    def take(self, count: int) -> Tensor:
        """Return the next ``count`` frames [T, H, W, 3]."""
        return torch.stack([self._take_one() for _ in range(count)])

    def ends_before(self, frame: int) -> bool:
        """Whether the video ends with the source, before this frame, up to which all have been taken."""
        return self._at_end == "stop" and self.length is not None and self.length <= frame

    def _take_one(self) -> Tensor:
        if self._next is None and self._at_end == "loop":
            self._frames = self._clip.frames()
            self._next = next(self._frames, None)
        if self._next is not None:
            self._last, self._next = self._next, next(self._frames, None)
            self._read += 1
            if self._next is None and self.length is None:
                self.length = self._read
        assert self._last is not None
        return self._last
