"""Writing of video files frame by frame; the file plays whenever the writing ends.

While it grows, the file consists of fragments of one frame each. A sidecar, ``<name>.json``, has the record of how the
video was made and the number of frames that are safely in the file. `VideoWriter.close` copies the stream into an
ordinary file with that record inside, and deletes the growing file and the sidecar.

A video of the same name is left alone until the new one is complete: the new one grows as ``<name>.unfinished.mp4``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
from av.video.reformatter import ColorRange, Colorspace
from torch import Tensor

from .atomic_write import atomic_write
from .clean_text import whole_characters
from .disk import make_folder
from .file_names import libav_url
from .pixels import to_bytes

# Without lookahead every frame is in the file as soon as it was written, and the same frames give the same file:
# x264's macroblock tree, which looks ahead, is not deterministic on small pictures.
_CODECS: dict[str, tuple[str, str, dict[str, str], dict[str, str]]] = {
    ".mp4": (
        "mp4",
        "libx264",
        {"tune": "zerolatency"},
        {"movflags": "empty_moov+default_base_moof+frag_every_frame"},
    ),
    ".webm": (
        "webm",
        "libvpx-vp9",
        {"deadline": "realtime", "cpu-used": "6", "lag-in-frames": "0", "b": "0", "row-mt": "1"},
        {"cluster_time_limit": "1"},
    ),
}
_DEFAULT_CRF = {".mp4": 18, ".webm": 28}
_BYTES_A_PIXEL = 0.08  # of ordinary footage at these qualities
_COPIES = 2  # the growing file, and the finished one that replaces it
# BT.709 at every size, and named in the file: players guess by the size where it is not, and libswscale by nothing
_COLORSPACE, _BT709 = Colorspace.ITU709, 1  # ffmpeg's number for primaries, transfer function and matrix alike


def sidecar_of(path: Path) -> Path:
    """Return the path of the record of an unfinished video."""
    return path.with_name(path.name + ".json")


def expected_bytes(width: int, height: int, frames: int) -> int:
    """Estimate the room that a video takes while it is written and finished."""
    return round(width * height * frames * _BYTES_A_PIXEL * _COPIES)


def _growing_file(path: Path) -> Path:
    """Return where a video grows: under its own name, or beside an older video of that name."""
    number, growing = 1, path
    while growing.exists():
        name = ".unfinished" if number == 1 else f".unfinished-{number}"
        growing, number = path.with_name(path.stem + name + path.suffix), number + 1
    return growing


def check_video_name(path: Path) -> None:
    """Raise ValueError unless `VideoWriter` writes files with the ending of ``path``."""
    if path.suffix.lower() not in _CODECS:
        raise ValueError(f"{path}: videos are written as {' or '.join(_CODECS)}, not {path.suffix or 'without ending'}")


class _Unbuffered:
    """An unbuffered file for PyAV, which keeps the reason of an error that PyAV hides."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb", buffering=0)
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class VideoWriter:
    """A writer of MP4 (H.264) or WebM (VP9) files, chosen by the ending of ``path``; a context manager.

    Args:
        path: The file, which appears with the first frames. An older one is replaced when the new one is complete.
            Its folder is created if necessary.
        fps: Frames per second.
        crf: Quality, lower is better; by default 18 for MP4 and 28 for WebM.
        pixel_format: By default ``yuv420p``, which every player supports, and ``yuv444p`` for frames of an odd size.
        record: Metadata of the file, each value as JSON under its key. It may be changed until `close`.

    Raises:
        ValueError: The ending, or the size of a frame, is not supported.
        OSError: The file cannot be written. At once, if its folder does not take files; later, the frames written
            before play.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        crf: int | None = None,
        pixel_format: str | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        check_video_name(self.path)
        ending = self.path.suffix.lower()
        self.frames = 0
        self.record: dict[str, Any] = dict(record or {})
        self._format, self._codec, options, container_options = _CODECS[ending]
        self._options: dict[str, Any] = {**options, "crf": str(_DEFAULT_CRF[ending] if crf is None else crf)}
        self._pixel_format = pixel_format
        self._fps = Fraction(fps).limit_denominator(1001)
        self._container_options = container_options
        make_folder(self.path.parent)
        self._growing = self.path
        self._stream: av.VideoStream | None = None  # with _file and _container, from the first frame on
        self._is_whole = False  # every frame is in the growing file

    def write(self, frames: Tensor) -> None:
        """Append ``frames`` [T, H, W, 3], float in 0..1 or 8-bit."""
        pixels = to_bytes(frames).numpy()
        try:
            for picture in pixels:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                stream = self._stream or self._start(frame.width, frame.height)
                if (frame.width, frame.height) != (stream.width, stream.height):
                    raise ValueError(
                        f"a frame of {frame.width} x {frame.height} does not fit "
                        f"a video of {stream.width} x {stream.height}"
                    )
                frame = frame.reformat(
                    format=stream.pix_fmt, dst_colorspace=_COLORSPACE, dst_color_range=ColorRange.MPEG
                )
                self._container.mux(stream.encode(frame))
                self.frames += 1
            self._write_sidecar()
        except OSError as error:
            raise self._explained(error) from error

    def _start(self, width: int, height: int) -> av.VideoStream:
        self._growing = _growing_file(self.path)
        self._file = _Unbuffered(self._growing)
        self._container = av.open(self._file, "w", format=self._format, options=self._container_options)
        stream = self._container.add_stream(self._codec, rate=self._fps)
        assert isinstance(stream, av.VideoStream)
        odd = width % 2 or height % 2
        stream.width, stream.height = width, height
        stream.pix_fmt = self._pixel_format or ("yuv444p" if odd else "yuv420p")
        stream.options = {**self._options}
        codec = stream.codec_context
        codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
        codec.color_range = ColorRange.MPEG
        self._stream = stream
        return stream

    def _write_sidecar(self) -> None:
        facts = {"frames": self._frames_in_file, "fps": float(self._fps), **self.record}
        with atomic_write(sidecar_of(self._growing), sync=False) as part:  # no wait for the disk between frames
            part.write_text(json.dumps(facts), encoding="utf-8")

    @property
    def _frames_in_file(self) -> int:
        """Frames that play if nothing more is written: the next frame closes a fragment, as it says how long it is."""
        return self.frames if self._is_whole else max(0, self.frames - 1)

    def close(self) -> None:
        """Replace the fragments by an ordinary file with the record inside. Without any frame, there is no file."""
        if self._stream is None or not self.frames:
            self.abandon()
            return
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._file.close()
            self._is_whole = True
            self._finish()
        except OSError as error:
            raise self._explained(error) from error

    def _finish(self) -> None:
        options = {
            "fflags": "+bitexact",
            **({"movflags": "use_metadata_tags+faststart"} if self._format == "mp4" else {}),
        }
        with atomic_write(self.path) as part:
            self._remux(part, options)
        for leftover in {self._growing, sidecar_of(self._growing), sidecar_of(self.path)} - {self.path}:
            leftover.unlink(missing_ok=True)

    def _remux(self, target_path: Path, options: dict[str, str]) -> None:
        with (
            av.open(libav_url(self._growing)) as source,
            av.open(libav_url(target_path), "w", format=self._format, options=options) as target,
        ):
            for key, value in self.record.items():
                target.metadata[whole_characters(key)] = (
                    whole_characters(value) if isinstance(value, str) else json.dumps(value)
                )
            template = source.streams.video[0]
            stream = target.add_stream_from_template(template)
            for packet in source.demux(template):
                if packet.dts is not None:  # the last, empty one
                    packet.stream = stream
                    target.mux(packet)

    def _explained(self, error: OSError) -> OSError:
        cause = (self._file.error if self._stream is not None else None) or error
        if not self._growing.exists():
            kept = "The file was removed while it was written" if self.frames else "No frame has been written"
            kept += "; make the video again, or write elsewhere"
        else:
            name, count = "the file" if self._growing == self.path else self._growing.name, self._frames_in_file
            kept = (
                f"Of its {self.frames} frames the first {count} are in {name} and play; make room, or write elsewhere"
            )
        return OSError(cause.errno, f"cannot write {self.path}: {cause.strerror or cause}. {kept}")

    def abandon(self) -> None:
        """Close the file as it is: fragments and sidecar stay. Without any frame, there is no file."""
        if self._stream is None:
            return
        self._file.close()
        if not self.frames:  # no player opens a video without frames
            self._growing.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            self.abandon()
        else:
            self.close()


def read_record(path: str | Path) -> dict[str, Any]:
    """Read the record of a video from its metadata, or from its sidecar if it was not finished.

    Raises:
        ValueError: The file is not a video.
    """
    path = Path(path)
    if sidecar_of(path).exists():
        facts: dict[str, Any] = json.loads(sidecar_of(path).read_text(encoding="utf-8"))
        return facts
    try:
        with av.open(libav_url(path), metadata_errors="replace") as container:
            metadata = dict(container.metadata)
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a video: {error}") from error
    record: dict[str, Any] = {}
    for key, value in metadata.items():
        try:
            record[key.lower()] = json.loads(value)
        except json.JSONDecodeError:
            record[key.lower()] = value
    return record
