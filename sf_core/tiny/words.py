"""The words of the tiny world, and the table of vectors that `TinyText` encodes them with."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..files.atomic_write import atomic_write
from ..files.safetensors_file import write_tensors
from ..noise import noise_key
from .world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SPEEDS

PAD = "<pad>"
_GRAMMAR = ("a", "moving", "on", "background")
VOCABULARY = (PAD, *_GRAMMAR, *COLOURS, *SHAPES, *DIRECTIONS, *SPEEDS, *BACKGROUNDS)
ALIASES = {
    "an": "a",
    "the": "a",
    "to": "a",
    "moves": "moving",
    "move": "moving",
    "going": "moving",
    "violet": "purple",
    "ball": "circle",
    "disc": "circle",
    "box": "square",
    "leftward": "left",
    "leftwards": "left",
    "rightward": "right",
    "rightwards": "right",
    "upward": "up",
    "upwards": "up",
    "downward": "down",
    "downwards": "down",
    "slow": "slowly",
    "quick": "quickly",
    "fast": "quickly",
    "rapidly": "quickly",
    "grey": "gray",
}
TEXT_LEN = 12  # words; a whole caption has 10: "a red circle moving left slowly on a black background"


def word_table(words: Sequence[str], width: int = 64, seed: int = 0) -> Tensor:
    """Draw an orthogonal vector of mean square 1 for each word, and zeros for ``<pad>``.

    Returns:
        Vectors [len(words), width], float32.

    Raises:
        ValueError: There are more words than ``width``, so that their vectors cannot be orthogonal.
    """
    if len(words) > width:
        raise ValueError(f"{len(words)} words do not fit a table {width} wide; make it wider, or take fewer words")
    generator = torch.Generator("cpu").manual_seed(noise_key(seed, 0, 0, 0))
    columns, _ = torch.linalg.qr(torch.randn(width, len(words), generator=generator, dtype=torch.float64))
    is_word = torch.tensor([[word != PAD] for word in words])
    return (columns.T * math.sqrt(width) * is_word).float()


def write_text(folder: Path, seed: int) -> None:
    """Write ``text.json`` and ``text.safetensors`` for `TinyText` into ``folder``."""
    facts = {"vocabulary": VOCABULARY, "aliases": ALIASES, "text_len": TEXT_LEN}
    with atomic_write(folder / "text.json") as part:  # each process of a distributed training writes it
        part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    table = word_table(VOCABULARY, seed=seed).bfloat16()
    write_tensors(folder / "text.safetensors", {"word.weight": (table.shape, table.dtype)}, [table], {})
