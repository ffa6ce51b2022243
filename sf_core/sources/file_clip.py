"""Video files as clips, read as they go."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from ..files.clips import CROP, opened, scaled_frames
from .clip import repeated


@dataclass(frozen=True, eq=False)
class FileClip:
    """A video file, of which one frame at a time is in memory.

    Attributes:
        file: Its path, or what it holds.
        size: (height, width) in pixels.
        fps: Frames a second; frame k is the file's frame nearest to ``k / fps`` seconds.
        fit: ``crop``: each frame fills ``size``, cropped around its centre. ``pad``: all of it is seen, between black
            edges.
        start: Second of the file that the clip begins at.
        duration: Its length in seconds; 0: up to the end of the file.
    """

    file: Path | io.BytesIO
    size: tuple[int, int]
    fps: float
    fit: str = CROP
    start: float = 0.0
    duration: float = 0.0

    def frames(self) -> Iterator[Tensor]:
        """See `Clip.frames`. Raises ValueError if the file is no video, and OSError if it cannot be read."""
        with opened(self.file) as container:
            span = Fraction(self.start), Fraction(self.duration)
            yield from repeated(scaled_frames(container, self.size, self.fps, self.fit, span))
