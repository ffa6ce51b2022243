"""Where a cache keeps what it holds between passes: on the model's device, or in host memory.

In host memory (`RolloutConfig.kv_offload`) the device has two layers at a time. While one is computed, the next one is
copied to the device, and what the last one has written is copied back. Both go over a stream of their own, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cuda_streams import copy_stream, free_pinned_memory, record_on_stream
from .kv_formats import StoredFrames
from .pinned_slabs import Slabs


@dataclass
class Lane:
    """Device memory for the keys and values that one layer attends to.

    Attributes:
        keys: Keys [B, tokens, heads, D]; ``values`` likewise.
        values: See ``keys``.
        ring: The ring of a layer, of a quantised cache in host memory.
    """

    keys: Tensor
    values: Tensor
    ring: tuple[StoredFrames, StoredFrames] | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors."""
        return [self.keys, self.values, *(tensor for one in self.ring or () for tensor in one.tensors)]


class DeviceStorage:
    """Tensors on the device itself. Nothing is copied, and nothing is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reserve(self, count: int, parts: Sequence[int]) -> None:
        """Say that the next tensors are ``count`` times such of ``parts`` bytes, in this order."""

    def new(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros, to be kept."""
        return torch.zeros(shape, dtype=dtype, device=self.device)

    @contextmanager
    def beside_the_pass(self) -> Iterator[None]:
        """Do the block's copies after everything that was computed so far, and beside what will be."""
        yield

    def mark(self) -> torch.cuda.Event | None:
        """A point after the copies so far, for `wait_for`."""
        return None

    def wait_for(self, mark: torch.cuda.Event | None) -> None:
        """Let what is computed from now on wait for the copies before ``mark``."""

    def lend(self, tensor: Tensor) -> None:
        """Say that copies use ``tensor``, so that its memory is not given away before they are done."""

    def finish(self) -> None:
        """Wait until all copies are done."""

    def trim(self) -> None:
        """Give memory of tensors that are gone back to the system."""


class HostStorage(DeviceStorage):
    """Tensors in host memory: pinned, as far as the system lets them be, so that a GPU copies them by itself."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._stream = copy_stream(device)
        self._slabs = Slabs(_pinned)

    def reserve(self, count: int, parts: Sequence[int]) -> None:
        """See `DeviceStorage.reserve`."""
        if self._stream is not None:
            self._slabs.reserve(count, parts)

    def new(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See `DeviceStorage.new`."""
        part = self._slabs.take(shape, dtype)
        return torch.zeros(shape, dtype=dtype) if part is None else part

    @contextmanager
    def beside_the_pass(self) -> Iterator[None]:
        """See `DeviceStorage.beside_the_pass`."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            yield

    def mark(self) -> torch.cuda.Event | None:
        """See `DeviceStorage.mark`."""
        return None if self._stream is None else self._stream.record_event()

    def wait_for(self, mark: torch.cuda.Event | None) -> None:
        """See `DeviceStorage.wait_for`."""
        if mark is not None:
            torch.cuda.current_stream(self.device).wait_event(mark)

    def lend(self, tensor: Tensor) -> None:
        """See `DeviceStorage.lend`."""
        record_on_stream(tensor, self._stream)

    def finish(self) -> None:
        """See `DeviceStorage.finish`."""
        if self._stream is not None:
            self._stream.synchronize()

    def trim(self) -> None:
        """See `DeviceStorage.trim`."""
        free_pinned_memory()


def _pinned(nbytes: int) -> Tensor:
    """Zeros in bytes [nbytes] of pinned memory, or of plain memory if the system pins no more."""
    try:
        return torch.zeros(nbytes, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:  # copies are slower then, and wait
        return torch.zeros(nbytes, dtype=torch.uint8)


def storage_of(device: torch.device, offload: bool) -> DeviceStorage:
    """The storage of a cache for a model on ``device``."""
    return HostStorage(device) if offload else DeviceStorage(device)


@contextmanager
def updating(*kept: Tensor, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """Yield ``kept`` tensors on ``device``, and keep what the block has made of them."""
    here = tuple(tensor.to(device, non_blocking=True) for tensor in kept)
    yield here
    for tensor, changed in zip(kept, here, strict=True):
        if changed is not tensor:
            tensor.copy_(changed, non_blocking=True)
