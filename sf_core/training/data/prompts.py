"""Lists of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...files.clean_text import clean_text
from .shuffled import Shuffled


class Prompts:
    """A list of prompts in shuffled batches.

    Attributes:
        prompts: The prompts in their original order.

    Raises:
        ValueError: For an empty list.
    """

    def __init__(self, prompts: Sequence[str], seed: int) -> None:
        if not prompts:
            raise ValueError("the list of prompts is empty; at least one is needed")
        self.prompts = tuple(prompts)
        self._order = Shuffled(len(self.prompts), seed)

    @staticmethod
    def read(path: str | Path, seed: int) -> Prompts:
        """Read a UTF-8 text file with one prompt per line; blank lines are skipped.

        Raises:
            ValueError: For a file without prompts, or in another encoding, naming the line.
            OSError: For a file that cannot be read.
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
        """Return the prompts of batch ``index`` if every batch has ``size``, independent of earlier calls.

        Each epoch is a new permutation of all prompts; a batch may span two epochs.
        """
        return [self.prompts[i] for i in self._order.batch(index, size)]


def _text(line: bytes, path: Path, number: int) -> str:
    try:
        return clean_text(line.decode("utf-8")).strip()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: byte {error.start + 1} is not UTF-8 ({error.reason}); save the file as UTF-8 text"
        ) from error
