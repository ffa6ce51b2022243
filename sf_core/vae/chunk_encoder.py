"""Streamed encoding: `ChunkEncoder` encodes a video part by part with any autoencoder of this package."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from ..out_of_memory import is_out_of_memory
from .layers import StreamState

log = logging.getLogger("self_forcing")


class StreamingVAE(Protocol):
    """The part of `VideoVAE` that streamed encoding uses."""

    temporal_factor: int
    lookahead: int
    state_type: type[StreamState]

    def encode_next(self, frames: Tensor, state: StreamState) -> Tensor:
        """Encode the frames that follow those which ``state`` has seen, and advance it."""


class ChunkEncoder:
    """An encoder that turns a video's frames, part by part, into the latents that encoding the whole video gives.

    A call that fails changes nothing: the encoder keeps its position. A call that runs out of memory is made again
    sparingly: it makes the same latents with a fraction of the memory, and takes longer. The encoder stays sparing.

    Attributes:
        at: Index of the latent that it makes next.
        sparing: Whether it has run out of memory before, see `StreamState`.
    """

    def __init__(self, vae: StreamingVAE) -> None:
        self.vae = vae
        self.sparing = False
        self.reset()

    def reset(self) -> None:
        """Return to the beginning of a video, and free the state of the last one."""
        self.at = 0
        self._state = self.vae.state_type(sparing=self.sparing)

    def frames_for(self, latents: int) -> int:
        """Return the number of frames, from the video's first on, that its first ``latents`` latents are made from."""
        return 1 + self.vae.temporal_factor * (latents - 1) + self.vae.lookahead if latents else 0

    def __call__(self, frames: Tensor) -> Tensor:
        """Encode the frames behind those of the calls before.

        Args:
            frames: [B, T, H, W, 3], in 0..1 or in 8 bits: those up to `frames_for` some number of latents.

        Returns:
            Their latents [B, C, F, H, W], float32.

        Raises:
            ValueError: The frames are not those of whole latents.
            torch.OutOfMemoryError: The memory is not even enough for encoding sparingly.
        """
        factor, given = self.vae.temporal_factor, self.frames_for(self.at) + frames.shape[1]
        count, rest = divmod(given - self.frames_for(1), factor)
        if rest or count < self.at:
            raise ValueError(
                f"{frames.shape[1]} frames behind latent {self.at} make no whole latents: expected "
                f"{self.frames_for(self.at + 1) - self.frames_for(self.at)}, or {factor}, {2 * factor}, ... more"
            )
        while True:
            state = self._state.copy()
            try:
                with torch.inference_mode(False), torch.no_grad():
                    latents = self.vae.encode_next(frames, state)
                break
            except Exception as error:
                if self.sparing or not is_out_of_memory(error):
                    raise
            # the error is gone, and what it held is free
            log.warning("the memory is not enough to encode several frames at once: encoding one by one, more slowly")
            self.sparing = True
            self._state.spare()
        self.at, self._state = count + 1, state
        return latents
