"""Names of models with two sets of weights: SGF+ denoises with one, and writes the cache with the other."""

from __future__ import annotations

PREFIX = "memory_"


def memory_name(name: str) -> str:
    """The name, in published files, of the weight of the second set that is ``name`` in the first.

    ``memory_`` stands before the last word inside a block (``blocks.0.self_attn.q.memory_weight``), before the first
    one outside (``memory_head.modulation``).
    """
    path, dot, last = name.rpartition(".")
    return f"{path}{dot}{PREFIX}{last}" if name.startswith("blocks.") else PREFIX + name
