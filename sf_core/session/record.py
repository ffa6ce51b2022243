"""What a session is made of: settings, prompts, seeds, events, and the latents made so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..noise import NoiseSource
from .archive import Archive
from .blocks import Block, Event, Prompt

if TYPE_CHECKING:
    from ..model.forward import WanForward


@dataclass(frozen=True, eq=False, repr=False)
class SessionRecord:
    """An immutable record of a video; `Session` is the record and what can be done with it."""

    model: WanForward
    config: RolloutConfig
    latent_size: tuple[int, int]
    batch: int
    head: Block | None  # the newest block
    prompt: Prompt  # of the next chunk, as are noise and event
    noise: NoiseSource
    event: Event
    archive: Archive  # of older blocks, shared by all that descend from one start
    other_models: tuple[str, ...] = ()  # fingerprints of models that made parts of this video, besides this one
    how: str = "new"  # how the cache for the newest chunk was come by, and why

    @property
    def frames(self) -> int:
        """Latent frames so far, given context included."""
        return self.head.place.end if self.head else 0

    @property
    def chunks(self) -> int:
        """Chunks sampled so far."""
        return self.head.chunk + 1 if self.head and self.head.chunk is not None else 0

    @property
    def latents(self) -> Tensor:
        """All latents [B, C, F, H, W], brought together in memory; for long videos use `iter_latents`."""
        empty = torch.empty(self.batch, self.model.arch.in_dim, 0, *self.latent_size, device=self.model.device)
        return torch.cat([empty, *self.iter_latents()], dim=2)

    def iter_latents(self) -> Iterator[Tensor]:
        """The latents block by block, oldest first, one block in memory at a time."""
        for block in reversed(list(self.head.back()) if self.head else []):
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
