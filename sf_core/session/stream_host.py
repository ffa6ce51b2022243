"""What a stream asks for: a decoder, and a host that runs it; and what it yields."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from ..cancellation import Cancellation
from ..files.pixels import to_bytes
from .next_chunk import Progress
from .session import Session


class Decoder(Protocol):
    """Latents to frames, chunk by chunk. See `WanVAE.stream_decoder`."""

    @property
    def history(self) -> int:
        """Number of latent frames before a frame on which it depends."""

    @property
    def temporal_factor(self) -> int:
        """Frames for each latent frame; the video's first latent frame gives one."""

    @property
    def cache_bytes(self) -> int:
        """Memory held between calls."""

    @property
    def at(self) -> int | None:
        """The latent frame that it expects next; None: none."""

    def reset(self) -> None:
        """Forget everything, and expect the beginning of a video."""

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        """Frames of ``latents``, which begin at latent frame ``at``; ``history`` warms up a decoder that has jumped."""


class Source(Protocol):
    """What each next chunk of a stream is made from, besides noise. See `sources.VideoSource`."""

    def give(self, session: Session) -> Session:
        """Return ``session`` with the source of its next chunk."""

    def prepare(self, start: int, count: int) -> None:
        """Get the chunk of ``count`` latent frames ready that begins with ``start``, if that can be done ahead."""

    def is_over(self, session: Session) -> bool:
        """Whether the video ends before the next chunk of ``session``, because the source has."""


@dataclass
class StreamEvent:
    """A decoded chunk.

    Attributes:
        chunk: Its index among the session's sampled chunks.
        frames: [B, T, H, W, 3], float in 0..1.
        session: The session that ends with this chunk.
        timings: Seconds of each stage: ``cache`` (passes that only fill the cache), ``sample`` (denoising),
            ``decode``, and ``wait`` (idle time of the caller's thread before the chunk was sampled).
    """

    chunk: int
    frames: Tensor
    session: Session
    timings: dict[str, float]

    @cached_property
    def pixels(self) -> Tensor:
        """The frames in 8 bits, on the CPU; converted once, for files and pictures alike."""
        return to_bytes(self.frames)


class StreamHost:
    """The program that runs a stream, as the stream sees it. This default suits the library; a program subclasses it.

    `make` runs in the worker (without ``overlap``, in the caller's thread), everything else in the caller's thread.
    """

    clock: Callable[[], float] = staticmethod(time.perf_counter)  # seconds
    sleep: Callable[[float], None] = staticmethod(time.sleep)

    def __init__(self, cancellation: Cancellation | None = None) -> None:
        self.cancellation = cancellation or Cancellation()

    def prepare(self, decoder: Decoder) -> None:
        """Reset the decoder. It may stand at the same frame of another video, which its position does not show."""
        decoder.reset()

    def make(self, session: Session, progress: Progress) -> tuple[Session, Tensor]:
        """Make the next chunk, as `Session.next_chunk` does."""
        return session.next_chunk(progress)

    def boundary(self, session: Session) -> Session:
        """Return the session that the next chunk extends. No other thread uses the model during the call."""
        return session

    def must_wait(self) -> bool:
        """Whether the next chunk has to wait. Asked between chunks, and every `POLL_SECONDS` while it has to."""
        return False

    def shown(self, event: StreamEvent) -> None:
        """Take notice of a chunk that has just been decoded. A re-roll may still withdraw it."""

    def withdrawn(self, session: Session) -> None:
        """Take notice of a re-roll: the chunks after ``session`` are withdrawn."""
