"""The file ``metrics.jsonl`` of a training run: one JSON object per step and line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

Value = Tensor | float


def read_values(steps: Sequence[Mapping[str, Value]]) -> list[dict[str, float]]:
    """Return the numbers of several steps, with one transfer from the device for all of them."""
    tensors = [value for values in steps for value in values.values() if isinstance(value, Tensor)]
    stacked = torch.stack([t.to(tensors[0].device, torch.float32) for t in tensors]).tolist() if tensors else []
    numbers = (float(f"{number:.7g}") for number in stacked)  # the precision of float32
    return [{n: next(numbers) if isinstance(v, Tensor) else float(v) for n, v in values.items()} for values in steps]


def open_metrics(path: Path, done: int) -> TextIO:
    """Open ``metrics.jsonl`` to append to it, truncated after the line of step ``done`` of the run.

    Later lines are of a run that got further than its last save; a killed run may leave an incomplete line.

    Raises:
        ValueError: For a file with other content.
    """
    size = 0
    if path.exists():
        with path.open("r+b") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") or _done_of(line, f"{path}, line {number}") > done:
                    break
                size += len(line)
            file.truncate(size)
    return path.open("a", encoding="utf-8")


def _done_of(line: bytes, where: str) -> int:
    try:
        return int(json.loads(line)["done"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where} is not a step's metrics; move the file away, or train in another folder") from error
