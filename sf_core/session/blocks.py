"""The records that a session's past is made of: prompts, events, blocks of latents."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..hashing import digest, tensor_digest
from ..model.kv_cache import Place
from ..noise import NoiseSource
from .archive import StoredLatents


class Prompt:
    """Text embeddings [B or 1, rows, text_dim], float32 on the CPU, without the zero rows that fill them up.

    words: what was encoded, as far as anybody said; it is for people, and counts for nothing.
    """

    def __init__(self, text: Tensor, words: str = "") -> None:
        self.words = words
        text = text.detach().to("cpu", torch.float32)
        used = text.ne(0).any(dim=2).any(dim=0).nonzero()
        self.text = text[:, : int(used[-1]) + 1 if len(used) else 0].clone()
        self.digest = tensor_digest(self.text)


@dataclass(frozen=True)
class Event:
    """What happens to the cache right before a chunk."""

    cut: bool = False  # it is emptied: a new scene
    recache: bool = False  # the ring is written again under the chunk's prompt
    recache_sink: bool = False  # and the sink before it

    @property
    def code(self) -> int:
        return 1 * self.cut + 2 * self.recache + 4 * self.recache_sink

    @staticmethod
    def from_code(code: int) -> Event:
        return Event(bool(code & 1), bool(code & 2), bool(code & 4))


NOTHING = Event()


@dataclass(frozen=True)
class Recache:
    """A recache event as it was carried out: blocks from ``first`` to before ``end`` were passed again."""

    first: int  # frame
    end: int  # frame
    prompt: Prompt
    ring_origin: int


@dataclass(frozen=True)
class Era:
    """A stretch without cuts and recaches: what the places of its blocks have in common."""

    start: int = 0  # frame
    scene: int = 0
    ring_origin: int = 0
    recache: Recache | None = None  # that began it
    sink: Recache | None = None  # that last rewrote the sink; blocks after it wrote their part themselves


@dataclass(eq=False, repr=False, slots=True)
class Block:
    """Some latents that were given or sampled together, and all that made them. Immutable.

    A record stays in memory (some 500 bytes); its latents may move to the archive.
    """

    parent: Block | None  # the block before this one
    place: Place
    era: Era
    prompt: Prompt
    timestep: float  # of the pass that writes its keys and values
    event: Event
    chunk: int | None  # index among the sampled chunks; None: given context
    noise: NoiseSource
    latents: StoredLatents
    root: bytes  # digest of what the whole session shares
    lineage: bytes = b""  # digest of this block and its whole past: latents, prompts, timesteps, events

    def __post_init__(self) -> None:
        if not self.lineage:
            past = self.parent.lineage if self.parent else self.root
            facts = struct.pack("<dqq", self.timestep, self.place.frames, self.event.code)
            self.lineage = digest(past, tensor_digest(self.latents.get()), self.prompt.digest, facts)

    def back(self) -> Iterator[Block]:
        """This block and those before it, newest first."""
        block: Block | None = self
        while block is not None:
            yield block
            block = block.parent
