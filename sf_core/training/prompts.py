"""Prompt lists, and the order in which training goes through a set of things."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..noise import MAX_SEED, noise_key


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


class Prompts:
    """A list of prompts, in batches by number. ``prompts``: as they were given. Raises ValueError for none."""

    def __init__(self, prompts: Sequence[str], seed: int) -> None:
        if not prompts:
            raise ValueError("the list of prompts is empty; at least one is needed")
        self.prompts = tuple(prompts)
        self._order = Shuffled(len(self.prompts), seed)

    @staticmethod
    def read(path: str | Path, seed: int) -> Prompts:
        """The prompts of a UTF-8 text file, one a line; blank lines do not count.

        Raises ValueError for a file without prompts or in another encoding, naming the line, OSError for one that
        cannot be read.
        """
        path = Path(path)
        lines = [_text(line, path, number) for number, line in enumerate(path.read_bytes().splitlines(), 1)]
        prompts = [line for line in lines if line]
        if not prompts:
            raise ValueError(f"{path} has no prompts in it; expected text, one prompt a line")
        return Prompts(prompts, seed)

    def __len__(self) -> int:
        return len(self.prompts)

    def batch(self, index: int, size: int) -> list[str]:
        """The prompts of batch ``index`` where every batch has ``size``: the same at any time, in any order of calls.

        Each epoch is a new seeded permutation of all prompts; a batch runs on over the end of one.
        """
        return [self.prompts[i] for i in self._order.batch(index, size)]


def _text(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: byte {error.start + 1} is not UTF-8 ({error.reason}); save the file as UTF-8 text"
        ) from error
