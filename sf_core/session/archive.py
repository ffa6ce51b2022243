"""The archive: an append-only file with the latents of older blocks."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor


class Archive:
    """An unnamed file of latents; the system deletes it with the last session that uses it.

    It grows by ``4 * B * C * F * H * W`` bytes a chunk. It is opened with the first latents.

    Args:
        folder: Where it is, made if need be. None: the system's folder for temporary files (``TMPDIR``).
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        # without a buffer: what a full disk did not take would wait in it, and fail every later read
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return os.fstat(self._file.fileno()).st_size if self._file else 0

    def put(self, latents: Tensor) -> int:
        """Append float32 latents.

        Returns:
            The offset that `get` takes.

        Raises:
            OSError: The disk is full. Nothing is lost.
        """
        data = latents.detach().cpu().contiguous().numpy().tobytes()
        with self._lock:
            try:
                if self._file is None:
                    self._file = self._open()
                offset = self._file.seek(0, os.SEEK_END)
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                other = "" if self._folder else ", or point TMPDIR to a folder that has it"
                raise OSError(
                    error.errno,
                    f"cannot move older latents to {self._folder or tempfile.gettempdir()}: {error.strerror}. "
                    f"The session is intact; free some space{other}",
                ) from error
        return offset

    def _open(self) -> BinaryIO:
        if self._folder is None:
            return tempfile.TemporaryFile(buffering=0, prefix="self-forcing-")
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(buffering=0, prefix="self-forcing-", dir=self._folder)

    def get(self, offset: int, shape: tuple[int, ...]) -> Tensor:
        """The latents at ``offset``, float32 on the CPU."""
        latents = torch.empty(shape, dtype=torch.float32)
        with self._lock:
            assert self._file is not None
            self._file.seek(offset)
            rest = latents.numpy().data.cast("B")
            while rest:
                read = self._file.readinto(rest)  # type: ignore[attr-defined]
                if not read:
                    raise OSError(errno.EIO, "older latents are gone: their temporary file was cut short")
                rest = rest[read:]
        return latents


class StoredLatents:
    """The latents [B, C, F, H, W] of one block, float32, on the CPU or in the archive. Their value never changes.

    They are read again for replays only, so they take no memory of a GPU.
    """

    def __init__(self, latents: Tensor) -> None:
        self._device, self._shape = latents.device, tuple(latents.shape)
        self._tensor: Tensor | None = latents.cpu()
        self._archived: tuple[Archive, int] | None = None  # and the offset in it

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the latents."""
        return self._shape

    @property
    def in_memory(self) -> bool:
        """Whether the latents have not moved to the archive."""
        return self._tensor is not None

    def get(self) -> Tensor:
        """The latents, on the device where they were made. Do not change them in place."""
        return self.on_cpu().to(self._device)

    def on_cpu(self) -> Tensor:
        """The latents on the CPU. Do not change them in place."""
        tensor = self._tensor  # another thread may archive them meanwhile
        if tensor is not None:
            return tensor
        assert self._archived is not None
        archive, offset = self._archived
        return archive.get(offset, self._shape)

    def move_to(self, archive: Archive) -> None:
        """Move the latents from memory to ``archive``. Raises OSError, with nothing lost, if the disk is full."""
        tensor = self._tensor
        if tensor is not None:
            self._archived = archive, archive.put(tensor)
            self._tensor = None
