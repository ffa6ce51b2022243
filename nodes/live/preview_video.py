"""The video that shows frames which are a result of their own: without room for it, the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ...sf_core.files import disk_budget
from ...sf_core.files.video import VideoWriter, sidecar_of
from ...sf_core.message import Message
from ..adapters import host


class PreviewVideo:
    """A writer of a video that may fail; a context manager.

    Args:
        path: The file.
        fps: Frames per second.
        say: Shows a sentence to the user.
    """

    def __init__(self, path: Path, fps: float, say: Callable[[Message], None]) -> None:
        self._path, self._fps, self._say = path, fps, say
        self._writer: VideoWriter | None = None
        self._failed = False

    def write(self, frames: Tensor) -> None:
        """Append ``frames`` [T, H, W, 3], float in 0..1 or 8-bit."""
        if self._failed:
            return
        try:
            self._writer = self._writer or VideoWriter(self._path, self._fps)
            self._writer.write(frames)
        except OSError as error:
            self._fail(error)

    def __enter__(self) -> PreviewVideo:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is None or self._failed:
            return
        try:
            self._writer.close()
        except OSError as failure:
            self._fail(failure)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        if self._writer is not None:
            self._writer.abandon()
        for file in (self._path, sidecar_of(self._path)):
            disk_budget.delete(file)
        sentence = Message("there is no video of these frames: {why}", why=error.strerror or error)
        host.log.warning("%s", sentence)
        self._say(sentence)
