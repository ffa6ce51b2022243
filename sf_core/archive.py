"""Where the older part of a session is kept: an append-only file of records and latents."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class StoredLatents:
    """One block's latents [B, C, F, H, W], float32. Their value never changes, only where they are."""

    def __init__(self, latents: Tensor) -> None:
        self._tensor: Tensor | None = latents
        self._read: Callable[[], Tensor] | None = None

    @staticmethod
    def archived(read: Callable[[], Tensor]) -> StoredLatents:
        """Latents that ``read`` brings from the archive."""
        stored = StoredLatents.__new__(StoredLatents)
        stored._tensor, stored._read = None, read
        return stored

    @property
    def in_memory(self) -> bool:
        return self._tensor is not None

    def get(self) -> Tensor:
        """The latents, on the device where they were made; not to be changed in place."""
        if self._tensor is not None:
            return self._tensor
        assert self._read is not None
        return self._read()


@dataclass(frozen=True)
class Archived:
    """A block in the archive."""

    archive: Archive
    offset: int


class Archive:
    """An unnamed file; the system takes it back with the last session that uses it.

    Grows by ``4 * B * C * F * H * W`` bytes a chunk and those of its record. Lies in the folder of temporary files
    (``TMPDIR``). What many records share (prompts, noise sources) stays in memory, once.
    """

    def __init__(self, frame_shape: tuple[int, int, int, int], device: torch.device) -> None:
        self._frame_shape = frame_shape  # B, C, H, W
        self._device = device
        self._file = tempfile.TemporaryFile(prefix="self-forcing-")  # noqa: SIM115 - lives as long as this
        self._lock = threading.Lock()
        self._shared: list[Any] = []
        self._numbers: dict[int, int] = {}  # of shared objects, by id; the list keeps them alive

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return os.fstat(self._file.fileno()).st_size

    def number(self, item: object) -> int:
        """The number under which `shared` gives ``item`` back."""
        with self._lock:
            if id(item) not in self._numbers:
                self._numbers[id(item)] = len(self._shared)
                self._shared.append(item)
            return self._numbers[id(item)]

    def shared(self, number: int) -> Any:
        return self._shared[number]

    def put(self, record: bytes, latents: StoredLatents) -> Archived:
        """Append a record and its latents. Raises OSError, with nothing lost, if the disk is full."""
        data = latents.get().detach().cpu().contiguous().numpy().tobytes()
        with self._lock:
            offset = self._file.seek(0, os.SEEK_END)
            try:
                self._file.write(record + data)
                self._file.flush()
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"cannot move older latents to {tempfile.gettempdir()}: {error.strerror}. The session is intact; "
                    "free some space, or point TMPDIR to a folder that has it",
                ) from error
        return Archived(self, offset)

    def get(self, archived: Archived, size: int) -> tuple[bytes, Callable[[int], StoredLatents]]:
        """A record of ``size`` bytes, and what makes its latents from their number of frames."""
        with self._lock:
            self._file.seek(archived.offset)
            record = self._file.read(size)
        return record, lambda frames: StoredLatents.archived(lambda: self._read(archived.offset + size, frames))

    def _read(self, offset: int, frames: int) -> Tensor:
        batch, channels, height, width = self._frame_shape
        latents = torch.empty(batch, channels, frames, height, width, dtype=torch.float32)
        with self._lock:
            self._file.seek(offset)
            self._file.readinto(memoryview(latents.numpy()))  # type: ignore[arg-type]
        return latents.to(self._device)
