"""Times of a clip's frames: which frames are shown at another rate, and in a part of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

Timed = tuple[Any, Fraction, Fraction]  # a frame or packet, its presentation time and its duration, in seconds

_MAX_DENOMINATOR = 1001  # of frame rates, so that 29.97 means 30000/1001 and times are exact


def exact_rate(fps: float) -> Fraction:
    """Frames a second as a fraction; 0 for what is no number."""
    return Fraction(fps).limit_denominator(_MAX_DENOMINATOR) if math.isfinite(fps) else Fraction(0)


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


def between(timed: Iterable[Timed], start: Fraction, duration: Fraction) -> Iterator[Timed]:
    """Yield the frames that are shown from second ``start`` of a video on, for ``duration`` seconds; 0: all."""
    first = None
    for frame, time, lasts in timed:
        first = time if first is None else first
        if duration and time - first >= start + duration:
            return
        if time - first >= start:
            yield frame, time, lasts
