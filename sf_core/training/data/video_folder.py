"""A folder of videos with captions, as clips of one length, size and rate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...files.clip_times import Timed, exact_rate, resampled
from ...files.clips import fitted, opened, shown

ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif")
_NAMED = 5  # largest number of files that an error about captions names


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
        self._rate = exact_rate(fps)
        if min(frames, *size) < 1 or self._rate <= 0:
            raise ValueError(
                f"clips of {frames} frames, {size[1]} x {size[0]} pixels, {fps} a second: each number must be above 0"
            )
        self.files = video_files(self.folder)
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
        with opened(path) as container:
            for frame, count in resampled(shown(container), self._rate):
                missing = min(count, self.frames) - len(pictures)
                if missing > 0:  # else the file has a higher rate, and the clip needs no frame yet
                    pictures += [fitted(frame, container.streams.video[0].sample_aspect_ratio, self.size)] * missing
                if len(pictures) == self.frames:
                    return torch.from_numpy(np.stack(pictures)).float() / 255
        raise ValueError(self._too_short(path, len(pictures)))

    def _check(self, path: Path) -> None:
        """Decode one frame, then read the packets' times, only as far as the clip goes."""
        with opened(path) as container:
            if next(shown(container), None) is None:
                raise ValueError(f"{path} has no frame that can be decoded")
        packets: list[Timed] = []
        with opened(path) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.pts is None or packet.is_discard:
                    continue  # the end of the stream, or a frame that is decoded and not shown
                packets.append((packet, packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base))
                if (packets[-1][1] - packets[0][1]) * self._rate > self.frames:
                    return
        in_order = sorted(packets, key=lambda timed: timed[1])
        count = max((count for _, count in resampled(in_order, self._rate)), default=0)
        if count < self.frames:
            raise ValueError(self._too_short(path, count))

    def _too_short(self, path: Path, count: int) -> str:
        return (
            f"{path} is too short: {float(count / self._rate):.2f} s, which is {count} frames at "
            f"{float(self._rate):g} a second; a clip has {self.frames}, {float(self.frames / self._rate):.2f} s"
        )


def video_files(folder: Path) -> list[Path]:
    """Return the videos below a folder, sorted. Raises ValueError if there are none."""
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
