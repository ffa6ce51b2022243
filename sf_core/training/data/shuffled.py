"""The order in which a training sees its data: a new permutation an epoch, by the seed alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ...noise import MAX_SEED, noise_key


class Shuffled:
    """An endless order of ``count`` things in which every epoch is a new permutation of all of them.

    It depends on nothing but count and seed, and any part of it can be asked for at any time: a resumed run sees what
    an undisturbed one would have seen. Raises ValueError for a count below 1 and for a seed outside 0 .. 2**64 - 1.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError(f"there are {count} things to choose from; at least one is needed")
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed is {seed}; expected a whole number from 0 to {MAX_SEED}")
        self.count = count
        self.seed = seed
        self._newest = (-1, torch.empty(0))  # an epoch and its permutation: one for 250,000 takes milliseconds to make

    def indices(self, start: int, size: int) -> list[int]:
        """The numbers, below ``count``, at the places start .. start + size - 1 of the order."""
        if start < 0 or size < 1:
            raise ValueError(f"places from {start}, {size} of them: expected a start from 0 on and a size from 1 on")
        found: list[int] = []
        while len(found) < size:
            epoch, first = divmod(start + len(found), self.count)
            found += self._permutation(epoch)[first : first + size - len(found)].tolist()
        return found

    def batch(self, index: int, size: int) -> list[int]:
        """The numbers of batch ``index`` where every batch has ``size``; runs on over the end of an epoch."""
        return self.indices(index * size, size)

    def _permutation(self, epoch: int) -> Tensor:
        newest, order = self._newest
        if newest != epoch:
            generator = torch.Generator("cpu").manual_seed(noise_key(self.seed, epoch, 0, 0))
            order = torch.randperm(self.count, generator=generator)
            self._newest = epoch, order
        return order
