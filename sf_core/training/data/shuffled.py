"""The order of the training data: a new permutation per epoch, which depends on the seed alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ...noise import MAX_SEED, noise_key


class Shuffled:
    """An endless sequence of indices below ``count`` in which every epoch is a new permutation.

    It depends on ``count`` and ``seed`` alone, and any part of it can be read at any time. So a resumed run gets the
    same data as an uninterrupted one.

    Raises:
        ValueError: For a count below 1, or a seed outside 0 .. 2**64 - 1.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError(f"there are {count} things to choose from; at least one is needed")
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed is {seed}; expected a whole number from 0 to {MAX_SEED}")
        self.count = count
        self.seed = seed
        self._newest = (-1, torch.empty(0))  # the last epoch and its permutation: 250,000 indices take milliseconds

    def indices(self, start: int, size: int) -> list[int]:
        """Return the indices at positions start .. start + size - 1 of the sequence."""
        if start < 0 or size < 1:
            raise ValueError(f"places from {start}, {size} of them: expected a start from 0 on and a size from 1 on")
        indices: list[int] = []
        while len(indices) < size:
            epoch, first = divmod(start + len(indices), self.count)
            indices += self._permutation(epoch)[first : first + size - len(indices)].tolist()
        return indices

    def batch(self, index: int, size: int) -> list[int]:
        """Return the indices of batch ``index`` if every batch has ``size``; a batch may span two epochs."""
        return self.indices(index * size, size)

    def _permutation(self, epoch: int) -> Tensor:
        newest, order = self._newest
        if newest != epoch:
            generator = torch.Generator("cpu").manual_seed(noise_key(self.seed, epoch, 0, 0))
            order = torch.randperm(self.count, generator=generator)
            self._newest = epoch, order
        return order
