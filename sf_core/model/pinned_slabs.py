"""Slabs of pinned memory, which buffers are cut from.

torch's allocator of pinned memory rounds each piece up to a power of two: buffers of 82 MiB would take 128 MiB each.
Slabs are powers of two that hold many buffers, so that little is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

ALIGNMENT = 512  # bytes that a buffer begins at a multiple of
LARGEST = 2**32  # bytes of a slab, if 16 buffers fit: where the system pins no more, no more than that is not pinned
Slab = tuple[int, int]  # its bytes, and the number of units in it


def aligned(nbytes: int) -> int:
    """``nbytes``, rounded up to where the next buffer may begin."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@lru_cache(maxsize=4096)
def slabs_for(count: int, unit: int) -> tuple[Slab, ...]:
    """The slabs that together are smallest for ``count`` units of ``unit`` bytes; of equal ones the fewest."""
    if not count or not unit:
        return ()
    least = 1 << (unit - 1).bit_length()
    largest = max(least, min(max(LARGEST, 16 * least), 1 << (count * unit - 1).bit_length()))
    best: list[tuple[int, int, Slab | None]] = [(0, 0, None)]  # for so many units: bytes, slabs, and one of them
    for units in range(1, count + 1):
        size, options = least, []
        while size <= largest:
            held = min(units, size // unit)
            nbytes, slabs, _ = best[units - held]
            options.append((nbytes + size, slabs + 1, (size, held)))
            size *= 2
        best.append(min(options, key=lambda option: option[:2]))
    chosen: list[Slab] = []
    left = count
    while left:
        slab = best[left][2]
        assert slab is not None
        chosen.append(slab)
        left -= slab[1]
    return tuple(sorted(chosen, reverse=True))


def slab_bytes(count: int, parts: Sequence[int]) -> int:
    """Bytes of the slabs for ``count`` units, each of buffers of these numbers of bytes."""
    return sum(size for size, _ in slabs_for(count, sum(map(aligned, parts))))


class Slabs:
    """Cuts buffers from slabs. A slab is freed with the last of its buffers.

    Args:
        allocate: Makes a slab, zeros in bytes [n], of pinned memory.
    """

    def __init__(self, allocate: Callable[[int], Tensor]) -> None:
        self._allocate = allocate
        self._planned: deque[Slab] = deque()
        self._parts: Sequence[int] = ()
        self._places: deque[tuple[Tensor, int, int]] = deque()  # of the next buffers: slab, first byte, bytes

    def reserve(self, count: int, parts: Sequence[int]) -> None:
        """Plan the next ``count`` times buffers of ``parts`` bytes, which come in this order."""
        self._parts = [nbytes for nbytes in parts if nbytes]
        self._planned = deque(slabs_for(count, sum(map(aligned, self._parts))))
        self._places.clear()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """The next buffer, zeros. None: it is empty, or was not planned."""
        nbytes = prod(shape) * dtype.itemsize
        if not nbytes:
            return None
        if not self._places and self._planned:
            size, units = self._planned.popleft()
            slab, at = self._allocate(size), 0
            for _ in range(units):
                for part in self._parts:
                    self._places.append((slab, at, part))
                    at += aligned(part)
        if not self._places:
            return None
        slab, at, planned = self._places.popleft()
        assert nbytes == planned
        return slab[at : at + nbytes].view(dtype).view(shape)
