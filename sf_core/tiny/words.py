"""The words of the tiny model's world, and the table that `TinyText` reads them with."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

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
    """A vector for each of ``words``, [len(words), width], float32: random, of mean square 1, all at right angles.

    That of ``<pad>`` is zero. Raises ValueError for more words than ``width``, which leaves no room for right angles.
    """
    if len(words) > width:
        raise ValueError(f"{len(words)} words do not fit a table {width} wide; make it wider, or take fewer words")
    generator = torch.Generator("cpu").manual_seed(noise_key(seed, 0, 0, 0))
    columns, _ = torch.linalg.qr(torch.randn(width, len(words), generator=generator, dtype=torch.float64))
    known = torch.tensor([[word != PAD] for word in words])
    return (columns.T * math.sqrt(width) * known).float()


def write_text(folder: Path, seed: int) -> None:
    """Write ``text.json`` and ``text.safetensors``, for `TinyText`, into ``folder``. Raises OSError if it cannot."""
    facts = {"vocabulary": VOCABULARY, "aliases": ALIASES, "text_len": TEXT_LEN}
    part = folder / f"text.json.{os.getpid()}.part"  # of several processes that train together, each writes it
    part.write_text(json.dumps(facts, indent=1))
    part.replace(folder / "text.json")
    table = word_table(VOCABULARY, seed=seed).bfloat16()
    write_tensors(folder / "text.safetensors", {"word.weight": (table.shape, table.dtype)}, [table], {})
