"""What a stream can be told while it runs; each takes effect between two chunks."""

from __future__ import annotations

import queue
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SwitchPrompt:
    """Another prompt, as in `Session.with_prompt`."""

    prompt: Tensor
    recache: bool = False
    recache_sink: bool = False


@dataclass(frozen=True)
class NewSeed:
    """Other noise from the next chunk on."""

    seed: int


@dataclass(frozen=True)
class Cut:
    """A new scene."""


@dataclass(frozen=True)
class ReRoll:
    """Sample again, with another seed, every chunk that has not been handed out yet."""

    seed: int


@dataclass(frozen=True)
class Pause:
    """Sample nothing more until `Resume`; what is made is handed out."""


@dataclass(frozen=True)
class Resume:
    """End a pause."""


@dataclass(frozen=True)
class Stop:
    """End the stream after the chunk at work."""


Command = SwitchPrompt | NewSeed | Cut | ReRoll | Pause | Resume | Stop
CommandQueue = queue.Queue[Command] | queue.SimpleQueue[Command]
