"""The tiny model's text encoder: one vector for each word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from ..files.clean_text import clean_text
from ..files.safetensors_file import open_tensors, read_value


class TinyText:
    """A text encoder that looks each word of a prompt up in a table.

    Args:
        vocabulary: ``text.json``: the words, their aliases, and the most words that a prompt may have.
        table: ``text.safetensors``: the vector of each word.

    Raises:
        ValueError: One of the files is damaged; the message names it.
    """

    def __init__(self, vocabulary: Path, table: Path) -> None:
        try:
            facts = json.loads(vocabulary.read_text(encoding="utf-8"))
            self.words: list[str] = facts["vocabulary"]
            self.aliases: dict[str, str] = facts["aliases"]
            self.text_len: int = facts["text_len"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{vocabulary} is not the vocabulary of a table of words ({error!r})") from error
        tensors, _ = open_tensors(table)
        if "word.weight" not in tensors or tensors["word.weight"].shape[:1] != (len(self.words),):
            raise ValueError(f"{table} does not belong to {vocabulary}: expected a vector of each word, 'word.weight'")
        self._table = read_value(tensors["word.weight"]).float()

    def encode(self, prompt: str) -> Tensor:
        """Encode a prompt to embeddings [1, words, 64].

        Raises:
            ValueError: The prompt is too long, or has a word outside the vocabulary; the message lists the vocabulary.
        """
        words = [self.aliases.get(word, word) for word in re.findall(r"[\w<>]+", clean_text(prompt).lower())]
        vocabulary = [word for word in self.words if not word.startswith("<")]
        unknown = [word for word in words if word not in vocabulary]
        if unknown:
            raise ValueError(
                f"the tiny model does not know {', '.join(map(repr, unknown))}. Its words: {', '.join(vocabulary)}; "
                f"also {', '.join(sorted(self.aliases))}"
            )
        if len(words) > self.text_len:
            raise ValueError(f"the prompt has {len(words)} words; the tiny model reads at most {self.text_len}")
        return self._table[torch.tensor([self.words.index(word) for word in words], dtype=torch.long)].unsqueeze(0)
