"""The record of a session: settings, prompts, seeds, events, the latents so far, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..hashing import digest, tensor_digest
from ..model.cache_shape import CacheShape
from ..model.causal_model import CausalModel
from ..noise import NoiseSource
from .archive import Archive, StoredLatents
from .blocks import Block, Event, Prompt
from .cache_point import CachePoint, cache_point
from .replay import replay_reach
from .rolling import InFlight
from .source import Source

NEAR_CHUNKS = 64
FLIGHTS_NEAR = 2  # chunks whose flights stay in memory: only a rewind reads them

# The re-encoded first frame of the next chunk's context [B, C, 1, H, W]: the last picture of latent frame
# ``frames - context_frames``, encoded alone, as an image
Reencode = Callable[["SessionRecord"], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class SessionRecord:
    """An immutable record of a video. `Session` adds the operations on it.

    Attributes:
        model: The model that samples the next chunk.
        config: Rollout settings.
        latent_size: Height and width of the latents.
        batch: Number of videos that are made together.
        head: The newest block.
        prompt: The prompt of the next chunk.
        noise: The noise source of the next chunk.
        event: What happens to the cache before the next chunk.
        archive: Latents of older blocks, shared by all sessions that descend from one start.
        other_models: Fingerprints of other models that made parts of this video.
        flights: The chunks in flight, of which the next one comes out (``schedule="rolling"``).
        reencode: Encodes the first frame of the next chunk's context anew (``context="recompute"``).
        how: How the cache for the newest chunk was obtained, and why.
        held: A given latent frame [B, C, 1, H, W] that sits inside the first chunk. It is never rewound.
        source: What the next chunk is made from, besides noise.
    """

    model: CausalModel
    config: RolloutConfig
    latent_size: tuple[int, int]
    batch: int
    head: Block | None
    prompt: Prompt
    noise: NoiseSource
    event: Event
    archive: Archive
    other_models: tuple[str, ...] = ()
    how: str = "new"
    flights: InFlight | None = None
    held: Tensor | None = None
    source: Source | None = None
    reencode: Reencode | None = None

    @property
    def frames(self) -> int:
        """Number of latent frames so far, given context included."""
        return self.head.place.end if self.head else 0

    @property
    def chunks(self) -> int:
        """Number of chunks sampled so far."""
        return self.head.chunk + 1 if self.head and self.head.chunk is not None else 0

    @property
    def blocks(self) -> list[Block]:
        """All blocks so far, oldest first."""
        return list(self.head.back())[::-1] if self.head else []

    @property
    def latents(self) -> Tensor:
        """All latents [B, C, F, H, W] in one tensor. For long videos use `iter_latents`."""
        empty = torch.empty(self.batch, self.model.arch.in_dim, 0, *self.latent_size, device=self.model.device)
        return torch.cat([empty, *self.iter_latents()], dim=2)

    def iter_latents(self) -> Iterator[Tensor]:
        """The latents block by block, oldest first, one block in memory at a time."""
        for block in self.blocks:
            yield block.latents.get()

    def latents_between(self, start: int, end: int) -> Tensor:
        """Latent frames ``start`` to before ``end`` [B, C, F, H, W]."""
        parts = [torch.empty(self.batch, self.model.arch.in_dim, 0, *self.latent_size, device=self.model.device)]
        for block in self.head.back() if self.head and start < end else ():
            if block.place.end <= start:
                break
            first, last = max(start, block.place.start), min(end, block.place.end)
            if first < last:
                parts.append(block.latents.get()[:, :, first - block.place.start : last - block.place.start])
        return torch.cat([parts[0], *parts[:0:-1]], dim=2)

    @cached_property
    def cache_shape(self) -> CacheShape:
        """The shape of the session's cache."""
        return self.model.cache_shape(self.config, self.latent_size, self.batch)

    @cached_property
    def reach(self) -> int | None:
        """The newest chunks that are looked for in live caches, and whose latents stay in memory. None: all."""
        if self.cache_shape.follows_all:  # a replay takes all of the scene; few of it are worth a look
            return NEAR_CHUNKS
        if self.config.context == "recompute":
            return self.config.context_frames // self.config.chunk_frames + 1
        return replay_reach(self.model.arch.num_layers, self.config.ring_frames, self.config.chunk_frames)

    @cached_property
    def root(self) -> bytes:
        """Digest of the settings that the whole session shares."""
        facts = json.dumps([self.config.as_dict(), self.latent_size, self.batch]).encode()
        return digest(facts) if self.held is None else digest(facts, tensor_digest(self.held.cpu()))

    def point(self, event: Event) -> CachePoint:
        """The point after the newest block, with ``event`` applied."""
        root = self.head.root if self.head else self.root
        return cache_point(self.head, event, self.prompt, root, self.cache_shape, self.config.shot_offset)

    @property
    def joint_frames(self) -> int:
        """Latent frames of a joint recache before the next chunk, its own or one that a replay repeats; 0: none.

        The scene so far, of which a window limits what is passed.
        """
        epoch = self.point(self.event).epoch
        joint = [recache for recache in (epoch.recache, epoch.sink) if recache is not None and recache.joint]
        return max((recache.end - recache.scene for recache in joint), default=0)

    @property
    def keeps_last_step(self) -> bool:
        """Whether the keys and values of the next chunk's last step stay."""
        return self.config.context_from_last_step and self.head is not None

    @property
    def next_timesteps(self) -> tuple[float, ...]:
        """Denoising timesteps of the next chunk; none at all if it is its source."""
        chunk = self.chunks
        return self.config.timesteps(chunk) if self.source is None else self.source.timesteps(self.config, chunk)

    def block_at(
        self, now: CachePoint, latents: Tensor, timestep: float, chunk: int | None, noisy: Tensor | None = None
    ) -> Block:
        """The block of ``latents`` at the point ``now``, made with the session's present prompt and noise."""
        place, stored = now.place(latents.shape[2]), StoredLatents(latents)
        kept = None if noisy is None else StoredLatents(noisy)
        args = (self.head, place, now.epoch, self.prompt, timestep, now.event, chunk, self.noise, stored, now.root)
        return Block(*args, noisy=kept, flights=self.flights, source=self.source)

    def archive_old_blocks(self) -> None:
        """Move latents that no replay needs to disk; those of the sink too, since a replay reads them only once."""
        if self.head is None:
            return
        for block in reversed(list(takewhile(_holds_flights, islice(self.head.back(), FLIGHTS_NEAR, None)))):
            assert block.flights is not None
            block.flights.latents.move_to(self.archive)
        if self.reach is None:
            return
        older = takewhile(lambda block: block.latents.in_memory, islice(self.head.back(), self.reach + 1, None))
        # oldest first: if the disk fills up, everything before a moved block has moved
        for block in reversed(list(older)):
            for stored in block.stored:
                stored.move_to(self.archive)


def _holds_flights(block: Block) -> bool:
    return block.flights is not None and block.flights.latents.in_memory
