"""Where a session's latents are: the newest in memory, older ones in an append-only file."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence

import torch
from torch import Tensor


class LatentStore:
    """An unnamed append-only file of float32 latents; the system takes it back with the last session that uses it.

    Grows by ``4 * B * C * F * H * W`` bytes a chunk. Lies in the folder of temporary files (``TMPDIR``).
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="self-forcing-")  # noqa: SIM115 - lives as long as the store
        self._lock = threading.Lock()

    def append(self, latents: Tensor) -> int:
        """Write ``latents``; returns where. Raises OSError, with nothing lost, if the disk is full."""
        data = latents.detach().cpu().contiguous().numpy().tobytes()
        with self._lock:
            offset = self._file.seek(0, os.SEEK_END)
            try:
                self._file.write(data)
                self._file.flush()
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"cannot move older latents to {tempfile.gettempdir()}: {error.strerror}. The session is intact; "
                    "free some space, or point TMPDIR to a folder that has it",
                ) from error
        return offset

    def read(self, offset: int, shape: Sequence[int]) -> Tensor:
        latents = torch.empty(tuple(shape), dtype=torch.float32)
        with self._lock:
            self._file.seek(offset)
            self._file.readinto(memoryview(latents.numpy()))  # type: ignore[arg-type]
        return latents


class StoredLatents:
    """One block's latents [B, C, F, H, W]. Their value never changes, only where they are."""

    def __init__(self, latents: Tensor) -> None:
        self.shape = tuple(latents.shape)
        self.device = latents.device
        self._tensor: Tensor | None = latents
        self._place: tuple[LatentStore, int] | None = None

    @property
    def in_memory(self) -> bool:
        return self._tensor is not None

    def get(self) -> Tensor:
        """The latents, on the device where they were made; not to be changed in place."""
        tensor = self._tensor
        if tensor is not None:
            return tensor
        assert self._place is not None
        store, offset = self._place
        return store.read(offset, self.shape).to(self.device)

    def to_disk(self, store: LatentStore) -> None:
        """Move the latents out of memory. Safe while another thread reads them."""
        if self._tensor is not None:
            self._place = (store, store.append(self._tensor))
            self._tensor = None
