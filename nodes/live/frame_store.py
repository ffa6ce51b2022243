"""JPEGs of a run's frames on disk, for viewers who scrub back. Memory stays flat."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from pathlib import Path

from ..adapters import host

PART_BYTES = 512 * 2**20  # of one of two files; when the newer is full, the older is deleted


class _Part:
    """A file of pictures one after another, and their offsets."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self.numbers, self.offsets = array("q"), array("q")
        self._file = path.open("w+b")

    def add(self, number: int, picture: bytes) -> None:
        self._file.seek(self.size)
        self._file.write(picture)
        self.numbers.append(number)
        self.offsets.append(self.size)
        self.size += len(picture)

    def read(self, index: int) -> bytes:
        end = self.offsets[index + 1] if index + 1 < len(self.offsets) else self.size
        self._file.seek(self.offsets[index])
        return self._file.read(end - self.offsets[index])

    def forget_from(self, number: int) -> None:
        """Drop the pictures from frame ``number`` on."""
        count = bisect_right(self.numbers, number - 1)
        if count < len(self.numbers):
            self.size = self.offsets[count]
            del self.numbers[count:], self.offsets[count:]

    def remove(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


class FrameStore:
    """Pictures by frame number, which rises; for one writer and any number of readers."""

    def __init__(self, name: str) -> None:
        self._name, self._count, self._closed = name, 0, False
        self._parts: list[_Part] = []
        self._lock = threading.Lock()

    @property
    def first(self) -> int:
        """The oldest stored frame; 0 if there is none."""
        with self._lock:
            return next((part.numbers[0] for part in self._parts if part.numbers), 0)

    def add(self, number: int, picture: bytes) -> None:
        """Store a picture. Raises OSError if the disk is full."""
        with self._lock:
            if self._closed:
                return
            if not self._parts or self._parts[-1].size >= PART_BYTES:
                self._parts.append(_Part(host.temp_folder("live") / f"{self._name}-{self._count}.jpegs"))
                self._count += 1
            while len(self._parts) > 2:
                self._parts.pop(0).remove()
            self._parts[-1].add(number, picture)

    def at(self, number: int) -> tuple[int, bytes] | None:
        """Return (number, picture) of frame ``number`` or the nearest stored frame before it; None: there is none."""
        with self._lock:
            for part in reversed(self._parts):
                index = bisect_right(part.numbers, number) - 1
                if index >= 0:
                    return part.numbers[index], part.read(index)
        return None

    def forget_from(self, number: int) -> None:
        """Drop the pictures from frame ``number`` on."""
        with self._lock:
            for part in self._parts:
                part.forget_from(number)

    def close(self) -> None:
        """Delete the files."""
        with self._lock:
            self._closed = True
            while self._parts:
                self._parts.pop().remove()
