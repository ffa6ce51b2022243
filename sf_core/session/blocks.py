"""Records of a session's past: prompts, events, blocks of latents."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..hashing import digest, tensor_digest
from ..model.place import Place
from ..noise import NoiseSource
from .archive import StoredLatents
from .rolling import InFlight
from .source import Source


class Prompt:
    """Text embeddings [B or 1, rows, text_dim], float32 on the CPU, without their padding.

    Attributes:
        text: The embeddings.
        words: The prompt as text, where the caller gave it. It is shown to people and changes no result.
        digest: Digest of the embeddings.
    """

    def __init__(self, text: Tensor, words: str = "") -> None:
        self.words = words
        text = text.detach().to("cpu", torch.float32)
        used = text.ne(0).any(dim=2).any(dim=0).nonzero()
        self.text = text[:, : int(used[-1]) + 1 if len(used) else 0].clone()
        self.digest = tensor_digest(self.text)


@dataclass(frozen=True)
class Event:
    """What happens to the cache right before a chunk.

    Attributes:
        cut: The cache is emptied; a new scene begins.
        recache: The ring is written again under the prompt of the chunk.
        recache_sink: The sink is written again before the ring.
        joint: The recache is one pass over all frames of the window, each of which sees all others (LongLive). With
            ``recache_sink`` its first frames become the sink.
        shot: The chunk begins a shot: positions jump, and it is pinned, as the settings say.
        match: The chunk's latents get mean and spread of the first chunks of its stretch. It changes no cache.
    """

    cut: bool = False
    recache: bool = False
    recache_sink: bool = False
    joint: bool = False
    shot: bool = False
    match: bool = False

    @property
    def code(self) -> int:
        """The event as one number, as session files store it."""
        flags = (self.cut, self.recache, self.recache_sink, self.joint, self.shot, self.match)
        return sum(flag << bit for bit, flag in enumerate(flags))

    @staticmethod
    def from_code(code: int) -> Event:
        """The event of a number that `code` gave."""
        return Event(*(bool(code >> bit & 1) for bit in range(6)))


NOTHING = Event()
EVENT_CODES = {1: 8, 2: 32, 3: 32, 4: 64}  # how many there are, by the version of session files


@dataclass(frozen=True)
class Recache:
    """A recache as it was carried out: the frames from ``first`` to before ``end`` were passed again.

    They are whole blocks, one after the other, unless the recache was ``joint``.
    """

    first: int
    end: int
    prompt: Prompt
    ring_origin: int  # see `Place`
    scene: int = 0
    joint: bool = False


@dataclass(frozen=True)
class CacheEpoch:
    """A stretch of the video without cuts and recaches: facts that the places of its blocks share.

    Attributes:
        start: First frame of the epoch.
        scene: First frame of the scene: the newest cut, or the first frame of a joint recache that began the sink anew.
        ring_origin: See `Place`.
        recache: The recache that began the epoch.
        sink: The newest recache that rewrote the sink. Later blocks wrote their part of the sink themselves.
    """

    start: int = 0
    scene: int = 0
    ring_origin: int = 0
    recache: Recache | None = None
    sink: Recache | None = None


@dataclass(eq=False, repr=False, slots=True)
class Block:
    """Latents that were given or sampled together, and everything that made them. Immutable.

    The record stays in memory (about 500 bytes); its latents may move to the archive.

    Attributes:
        parent: The block before this one.
        place: Position in the video and in the cache.
        epoch: The cache epoch that the block belongs to.
        prompt: The prompt that the block was made with.
        timestep: Timestep of the pass that writes the block's keys and values.
        event: What happened to the cache before the block.
        chunk: Index among the sampled chunks. None: given context.
        noise: The noise source that the block was sampled from.
        latents: The clean latents.
        root: Digest of the settings that the whole session shares.
        noisy: What the last step was given, where its keys and values stay (``context_from_last_step``). They are not
            a function of the clean latents.
        flights: The chunks that were in flight before the block came out (``schedule="rolling"``). No cache holds them.
        reencoded: One latent frame [B, C, 1, H, W]: the first of the context of the chunk behind this block, encoded
            anew (``context="recompute"``). Set when that chunk is first made, and not part of the lineage.
        source: What it was made from, besides noise. Not part of the lineage, as noise is none.
        lineage: Digest of the block and its whole past: latents, prompts, timesteps, events.
    """

    parent: Block | None
    place: Place
    epoch: CacheEpoch
    prompt: Prompt
    timestep: float
    event: Event
    chunk: int | None
    noise: NoiseSource
    latents: StoredLatents
    root: bytes
    noisy: StoredLatents | None = None
    flights: InFlight | None = None
    reencoded: StoredLatents | None = None
    source: Source | None = None
    lineage: bytes = b""

    def __post_init__(self) -> None:
        if not self.lineage:
            past = self.parent.lineage if self.parent else self.root
            facts = struct.pack("<dqq", self.timestep, self.place.frames, self.event.code)
            made = [tensor_digest(stored.on_cpu()) for stored in (self.latents, self.noisy) if stored is not None]
            self.lineage = digest(past, *made, self.prompt.digest, facts)

    @property
    def stored(self) -> list[StoredLatents]:
        """All latents that the block holds: the clean ones first."""
        flying = None if self.flights is None else self.flights.latents
        given = None if self.source is None else self.source.latents
        return [stored for stored in (self.latents, self.noisy, flying, self.reencoded, given) if stored is not None]

    @property
    def written(self) -> StoredLatents:
        """The latents whose pass writes the block's keys and values."""
        return self.noisy or self.latents

    def back(self) -> Iterator[Block]:
        """This block and those before it, newest first."""
        block: Block | None = self
        while block is not None:
            yield block
            block = block.parent
