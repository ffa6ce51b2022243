"""Drift: how far a video has moved away from its own beginning, chunk by chunk, and what is done about it.

It is measured on latents. What a chunk is compared with, its *anchor*, are the first chunks of the same stretch: since
the last cut, shot or change of prompt, where a video is meant to change.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import RolloutConfig
from .blocks import Block, Event, Prompt
from .record import SessionRecord

ANCHOR_CHUNKS = 3
THRESHOLD = 0.5  # of `ChunkDrift.drift`
SMALL = 1e-6


@dataclass(frozen=True)
class ChunkDrift:
    """What was measured of a chunk; of a batch, in the video that drifts most.

    Attributes:
        chunk: Index of the chunk among the sampled ones.
        drift: Distance of the latents' mean and spread, channel by channel, from the anchor's, in units of the anchor's
            spread: the Wasserstein distance of two normal distributions. 0 for the first chunk of a stretch.
        mean: Root mean square of the channels' means.
        spread: Root mean square of the channels' standard deviations.
        sharpness: Share of the spread that is finer than 3 x 3 latent pixels, 0 to 1.
        motion: Change from one latent frame to the next, in units of the spread.
        similarity: Cosine between the mean latent frames of chunk and anchor, both without the anchor's channel means.
            1: the same picture.
        saturation: See `saturation_of`. None: it is one of decoded frames, and none were at hand.
    """

    chunk: int
    drift: float
    mean: float
    spread: float
    sharpness: float
    motion: float
    similarity: float
    saturation: float | None = None


@dataclass(frozen=True, eq=False)
class Anchor:
    """The beginning of a stretch that chunks are compared with.

    Attributes:
        blocks: The first blocks of the stretch, at most `ANCHOR_CHUNKS`.
        mean: Mean of each channel [B, C, 1, 1, 1].
        spread: Standard deviation of each channel [B, C, 1, 1, 1].
        picture: Mean latent frame [B, C, H, W].
    """

    blocks: tuple[Block, ...]
    mean: Tensor
    spread: Tensor
    picture: Tensor

    @staticmethod
    def of(blocks: tuple[Block, ...]) -> Anchor:
        """The anchor that consists of these blocks."""
        latents = torch.cat([block.latents.get() for block in blocks], dim=2)
        return Anchor(blocks, *_statistics(latents), latents.mean(dim=2))


def anchor_blocks(block: Block) -> tuple[Block, ...]:
    """The blocks that the chunk of ``block`` is compared with, oldest first; it may be one of them."""
    stretch = [block]
    for earlier in block.back():
        if earlier is not block:
            stretch.append(earlier)
        if begins_stretch(earlier.event, earlier.prompt, earlier.parent):
            break
    return tuple(stretch[: -ANCHOR_CHUNKS - 1 : -1])


def begins_stretch(event: Event, prompt: Prompt, before: Block | None) -> bool:
    """Whether a chunk of this event and prompt behind ``before`` begins a stretch."""
    return before is None or event.cut or event.shot or before.prompt.digest != prompt.digest


def _statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of latents [B, C, F, H, W]: [B, C, 1, 1, 1] each."""
    mean = latents.mean(dim=(2, 3, 4), keepdim=True)
    return mean, (latents - mean).square().mean(dim=(2, 3, 4), keepdim=True).sqrt()


class DriftMeter:
    """Measures the chunks of a session, one after the other. It keeps the anchor between two calls."""

    def __init__(self) -> None:
        self._anchor: Anchor | None = None
        self._last: Block | None = None

    @property
    def has_whole_anchor(self) -> bool:
        """Whether the stretch of the chunk that was measured last has as many chunks as an anchor takes."""
        return self._anchor is not None and len(self._anchor.blocks) == ANCHOR_CHUNKS

    def measure(self, block: Block) -> ChunkDrift:
        """Measure the chunk of ``block``, a sampled one."""
        anchor = self._anchor_of(block)
        latents = block.latents.get()
        before = None if block.parent is None else block.parent.latents.get()[:, :, -1:]
        videos = _measure(latents, before, anchor).T.tolist()
        drift, mean, spread, sharpness, motion, similarity = max(videos)  # by the first number
        return ChunkDrift(block.chunk or 0, drift, mean, spread, sharpness, motion, similarity)

    def _anchor_of(self, block: Block) -> Anchor:
        known = self._anchor
        goes_on = block.parent is self._last and not begins_stretch(block.event, block.prompt, block.parent)
        self._last = block
        if known is not None and goes_on and len(known.blocks) == ANCHOR_CHUNKS:
            return known
        blocks = anchor_blocks(block)
        if known is None or blocks != known.blocks:
            self._anchor = known = Anchor.of(blocks)
        return known


def _measure(latents: Tensor, before: Tensor | None, anchor: Anchor) -> Tensor:
    """The numbers of `ChunkDrift` from ``drift`` to ``similarity``, each [B], in one tensor."""
    mean, spread = _statistics(latents)
    size = _rms(spread).clamp_min(SMALL)
    moved = (mean - anchor.mean).square() + (spread - anchor.spread).square()
    drift = moved.mean(dim=(1, 2, 3, 4)).sqrt() / _rms(anchor.spread).clamp_min(SMALL)
    blurred = torch.nn.functional.avg_pool2d(latents.flatten(1, 2), 3, 1, 1, count_include_pad=False)
    fine = _rms(latents.flatten(1, 2) - blurred) / size
    whole = latents if before is None else torch.cat([before, latents], dim=2)
    motion = _rms(whole.diff(dim=2)) / size if whole.shape[2] > 1 else torch.zeros_like(size)
    here, there = (torch.stack([latents.mean(dim=2), anchor.picture]) - anchor.mean[:, :, 0]).flatten(2)
    similarity = torch.nn.functional.cosine_similarity(here, there, dim=1)
    return torch.stack([drift, _rms(mean), size, fine.clamp_max(1.0), motion, similarity])


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(dim=1).sqrt()


def saturation_of(frames: Tensor) -> float:
    """The saturation of frames [B, F, H, W, 3], float in 0..1 or 8-bit: how far apart red, green and blue are, 0 to 1.

    Every fourth pixel of every fourth row is looked at.
    """
    some = frames[:, :, ::4, ::4]
    distance = (some.amax(-1) - some.amin(-1)).float().mean()
    return float(distance) / (1 if frames.is_floating_point() else 255)


def drift_of(session: SessionRecord, most: int | None = None) -> list[ChunkDrift]:
    """Measure the chunks of a session, oldest first, one in memory at a time.

    Args:
        session: The session.
        most: Of a session with more chunks, so many are measured, evenly spaced; the newest is one of them.
    """
    meter, blocks = DriftMeter(), [block for block in session.blocks if block.chunk is not None]
    every = 1 if most is None else max(1, -(-len(blocks) // most))
    return [meter.measure(block) for block in blocks[(len(blocks) - 1) % every :: every]]


def match_to_anchor(latents: Tensor, head: Block) -> Tensor:
    """Give new latents mean and spread of the anchor, channel by channel: colours and contrast go back to it.

    Args:
        latents: Clean latents [B, C, F, H, W] of the chunk behind ``head``, of the same stretch.
        head: The newest block.
    """
    anchor = Anchor.of(anchor_blocks(head))
    mean, spread = _statistics(latents)
    return (latents - mean) / spread.clamp_min(SMALL) * anchor.spread + anchor.mean


def check_match(session: SessionRecord) -> None:
    """Check that the next chunk can be matched to its anchor. Raises ValueError if not, and says why."""
    if begins_stretch(session.event, session.prompt, session.head):
        raise ValueError(
            "the next chunk begins the video, a scene, a shot or a prompt: there is nothing of its own to match it to"
        )
    check_match_settings(session.config)


def check_match_settings(config: RolloutConfig) -> None:
    """Raises ValueError if a video with these settings would not follow a chunk that is matched to its anchor."""
    if config.schedule == "rolling":
        raise ValueError(
            "schedule='rolling' has several chunks in flight, which would not follow a chunk whose colours are "
            "matched: take settings with schedule='chunk'"
        )
    if config.context_from_last_step:
        raise ValueError(
            "context_from_last_step keeps what the last step saw, so the video would not follow a chunk whose colours "
            "are matched: recache under the prompt instead"
        )
