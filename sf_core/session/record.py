"""The record of a session: settings, prompts, seeds, events, and the latents so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..model.causal_model import CausalModel
from ..noise import NoiseSource
from .archive import Archive
from .blocks import Block, Event, Prompt
from .rolling import InFlight

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
