"""Commands to a running stream. Each takes effect between two chunks.

Prompts, seeds and cuts are no commands: they are part of the session, and `StreamHost.boundary` sets them.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass


@dataclass(frozen=True)
class ReRoll:
    """Sample again, with another seed, every chunk that has not been handed out yet."""

    seed: int


@dataclass(frozen=True)
class Pause:
    """Sample nothing more until `Resume`. Finished chunks are handed out."""


@dataclass(frozen=True)
class Resume:
    """End a pause."""


@dataclass(frozen=True)
class Stop:
    """End the stream after the chunk in progress."""


Command = ReRoll | Pause | Resume | Stop
CommandQueue = queue.Queue[Command] | queue.SimpleQueue[Command]
