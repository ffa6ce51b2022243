"""Frames to a video file, frame by frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import torch
from torch import Tensor


class VideoWriter:
    """Writes an H.264 MP4 at ``path`` as frames come; a context manager. Its folder is made if need be.

    Raises OSError, naming the file, if it cannot be written.
    """

    def __init__(self, path: str | Path, fps: float, crf: int = 18) -> None:
        self.path = Path(path)
        self.frames = 0
        self._fps = Fraction(fps).limit_denominator(1001)
        self._crf = crf
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self.path), "w", format="mp4")
        self._stream: av.VideoStream | None = None

    def write(self, frames: Tensor) -> None:
        """Append ``frames`` [T, H, W, 3], float in 0..1."""
        pixels = (frames.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        for picture in pixels:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            stream = self._stream or self._start(frame.width, frame.height)
            self._container.mux(stream.encode(frame))
            self.frames += 1

    def _start(self, width: int, height: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self._fps)
        # players expect 4:2:0, which halves the colour's size: odd pictures keep theirs whole
        even = width % 2 == 0 and height % 2 == 0
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p" if even else "yuv444p"
        # without its macroblock tree x264 gives the same file for the same frames; with it, it does not for small ones
        stream.options = {"crf": str(self._crf), "x264-params": "mbtree=0"}
        self._stream = stream
        return stream

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
