"""Caches and decoder that all sessions of one MODEL share."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...sf_core.model.cache_pool import CachePool
from .idle_memory import IdleMemory


class SharedState:
    """Caches and decoder, shared by all sessions of one model; freed with the last of these sessions.

    Between runs ComfyUI sees them as a loaded model, and unloads them when another model needs the memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.caches = CachePool()
        self.decoder: tuple[tuple[str, bytes], Any] | None = None  # ((its VAE, what it has decoded), decoder)
        self.idle = IdleMemory(self, device)
        self._runs = 0

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.caches.nbytes + self.decoder_bytes

    @property
    def decoder_bytes(self) -> int:
        """Memory of the decoder's state, in bytes."""
        return int(self.decoder[1].cache_bytes) if self.decoder else 0

    def release(self) -> None:
        """Free everything."""
        self.caches.release()
        self.decoder = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep everything, whoever asks for memory, while the block runs."""
        self._runs += 1
        self.idle.withdraw()
        try:
            yield
        finally:
            self._runs -= 1
            self.offer()

    def offer(self) -> None:
        """Let ComfyUI have the memory when it needs it, unless a run is using it."""
        if not self._runs:
            self.idle.offer()


def shared_state_of(model: Any, device: torch.device) -> SharedState:
    """Return the state of a ComfyUI model, made on the first call and after it was freed."""
    reference = getattr(model, "_sf_shared", None)
    shared = reference() if reference else None
    if shared is None:
        shared = SharedState(device)
        model._sf_shared = weakref.ref(shared)
    return shared
