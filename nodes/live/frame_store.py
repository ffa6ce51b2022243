"""JPEGs of a run's frames on disk, for viewers who scrub back. Memory stays flat."""

from __future__ import annotations

import errno
import threading
from array import array
from bisect import bisect_right
from pathlib import Path

from ...sf_core.byte_units import GIB
from ...sf_core.files.disk_budget import allowance, delete
from ..adapters import host

PART_BYTES = GIB // 2  # of one of two files, at most; when the newer is full, the older is deleted
ALL_BYTES = 16 * GIB  # of the pictures of all runs
SMALLEST_PART = 2**16  # bytes; with less room the pictures of a run are not kept
SMALL_SHARE = 8  # on a small disk a file takes an eighth of what all may take
_stores: list[FrameStore] = []  # oldest first; ComfyUI runs one node at a time, so that only the newest grows


class _Part:
    """A file of pictures one after another, and their offsets."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit, self.size = path, limit, 0
        self.numbers, self.offsets = array("q"), array("q")
        self._file = path.open("w+b", buffering=0)  # a full disk is an error of the write, not of a later one

    def add(self, number: int, picture: bytes) -> None:
        self._file.seek(self.size)
        if self._file.write(picture) < len(picture):
            raise OSError(errno.ENOSPC, "the disk is full")
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
        delete(self.path)  # where a program put something else in its place, a later run must not fail for it


class FrameStore:
    """Pictures by frame number, which rises; for one writer and any number of readers.

    When the disk takes no more, the pictures so far stay, and the run goes on.
    """

    def __init__(self, name: str) -> None:
        self._name, self._count, self._closed = name, 0, False
        self._parts: list[_Part] = []
        self._lock = threading.Lock()
        _stores.append(self)

    @property
    def first(self) -> int:
        """The oldest stored frame; 0 if there is none."""
        with self._lock:
            return next((part.numbers[0] for part in self._parts if part.numbers), 0)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(part.size for part in self._parts)

    def add(self, number: int, picture: bytes) -> None:
        """Store a picture."""
        with self._lock:
            if self._closed:
                return
            try:
                if not self._parts or self._parts[-1].size >= self._parts[-1].limit:
                    self._begin_part()
                self._parts[-1].add(number, picture)
            except OSError as error:  # the run is more important than scrubbing back
                self._closed = True
                host.log.warning("later frames cannot be scrubbed back to: %s", error)

    def _begin_part(self) -> None:
        """Open the next file, and delete the older of two. Raises OSError if there is no room."""
        while len(self._parts) > 1:
            self._parts.pop(0).remove()
        folder = host.temp_folder("live")
        self._parts.append(_Part(folder / f"{self._name}-{self._count}.jpegs", self._part_bytes(folder)))
        self._count += 1

    def _part_bytes(self, folder: Path) -> int:
        """Return the size of a file of this run, of two; the oldest runs make room for them. Raises OSError."""
        while True:
            used = sum(store.size for store in _stores)
            allowed = allowance(folder, used, ALL_BYTES)
            part = min(PART_BYTES, allowed // SMALL_SHARE)
            if used + 2 * part <= allowed or _stores[0] is self:
                break
            _stores[0].close()
        if part < SMALLEST_PART:
            raise OSError(errno.ENOSPC, f"there is no room in {folder}")
        return part

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
            if self in _stores:
                _stores.remove(self)
