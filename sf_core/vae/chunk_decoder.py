"""Streamed decoding: `ChunkDecoder` decodes a video chunk by chunk with any autoencoder of this package."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from ..out_of_memory import is_out_of_memory
from .layers import StreamState

log = logging.getLogger("self_forcing")


class StreamableVAE(Protocol):
    """The part of `VideoVAE` that streamed decoding uses."""

    temporal_factor: int
    history: int
    state_type: type[StreamState]

    def check_latents(self, latents: Tensor) -> None:
        """Raise ValueError for latents of another model."""

    def latent_passes(self, latents: Tensor) -> Iterator[Tensor]:
        """Split ``latents`` into the parts that are decoded together."""

    def decode_next(self, latents: Tensor, state: StreamState) -> Tensor:
        """Decode the latents that follow those which ``state`` has seen, and advance it."""


class ChunkDecoder:
    """A decoder that turns a video's latents, chunk by chunk, into the frames that decoding the whole video gives.

    A call that fails changes nothing: the decoder keeps its position. A call that runs out of memory is made again
    sparingly: it makes the same frames with a fraction of the memory, and takes longer. The decoder stays sparing.

    Attributes:
        at: Index of the latent that it expects next.
        history: Number of latents before a frame's own that the frame depends on. The decoder needs them again to
            start at any other place of a video.
        sparing: Whether it has run out of memory before, see `StreamState`.
    """

    def __init__(self, vae: StreamableVAE) -> None:
        self.vae = vae
        self.sparing = False
        self.history = vae.history
        self.temporal_factor = vae.temporal_factor
        self.reset()

    def reset(self) -> None:
        """Return to the beginning of a video, and free the state of the last one."""
        self.at = 0
        self._size: tuple[int, ...] = ()  # batch, height and width of the latents so far
        self._state = self.vae.state_type(sparing=self.sparing)

    @property
    def cache_bytes(self) -> int:
        """Memory held between calls."""
        return self._state.bytes

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        """Decode a chunk.

        Args:
            latents: The chunk, [B, C, F, H, W].
            at: Index of its first latent in the video.
            history: The latents directly before it, oldest first. They are read only if the decoder is not at ``at``;
                it then needs the last ``decoder.history`` of them, or all if the video has fewer.

        Returns:
            The frames of the chunk, [B, T, H, W, 3] in 0..1.

        Raises:
            ValueError: The history is too short, or the latents are of another model.
            torch.OutOfMemoryError: The memory is not even enough for decoding sparingly.
        """
        self.vae.check_latents(latents)
        while True:
            try:
                frames, state = self._decode(latents, at, history)
                break
            except Exception as error:
                if self.sparing or not is_out_of_memory(error):
                    raise
            # the error is gone, and what it held is free
            log.warning("the memory is not enough to decode several frames at once: decoding one by one, more slowly")
            self.sparing = True
            self._state.spare()
        self.at, self._size, self._state = at + latents.shape[2], _size(latents), state
        return frames

    def _decode(self, latents: Tensor, at: int, history: Tensor | None) -> tuple[Tensor, StreamState]:
        with torch.no_grad():
            state = self._state_before(at, latents, history)
            parts = [self.vae.decode_next(part, state) for part in self.vae.latent_passes(latents)]
            return torch.cat(parts, dim=1), state

    def _state_before(self, at: int, latents: Tensor, history: Tensor | None) -> StreamState:
        """Return the state after decoding all latents of the video before ``at``."""
        if at < 0:
            raise ValueError(f"at is {at}; the first latent of a video is number 0")
        if at == self.at and _size(latents) == self._size:
            return self._state.copy()
        needed = min(at, self.history)
        state = self.vae.state_type(at == needed, self.sparing)
        if needed:
            before = self._checked_history(at, needed, latents, history)
            for part in self.vae.latent_passes(before[:, :, -needed:]):
                self.vae.decode_next(part, state)
        return state

    def _checked_history(self, at: int, needed: int, latents: Tensor, history: Tensor | None) -> Tensor:
        count = 0 if history is None else history.shape[2] if history.ndim == 5 else 1
        if history is not None and history.shape != (*latents.shape[:2], count, *latents.shape[3:]):
            raise ValueError(
                f"history has the shape {list(history.shape)}, which does not go with latents of {list(latents.shape)}"
            )
        if history is None or count < needed:
            stands = f"stands at latent {self.at}" if at != self.at else "was decoding latents of another size"
            raise ValueError(
                f"the decoder {stands}: to start at latent {at} it needs the {needed} latents before it as history=; "
                f"{count} were given"
            )
        return history


def _size(latents: Tensor) -> tuple[int, ...]:
    return (latents.shape[0], *latents.shape[3:])
