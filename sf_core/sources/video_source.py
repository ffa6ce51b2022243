"""A stream of frames as the source of a session's chunks: video to video."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from torch import Tensor

from ..session.frame_counts import video_frames
from ..session.published_noise import SOURCE_AND_PUBLISHED, PublishedNoise
from ..session.session import Session
from ..session.source import check_takes_source
from ..vae.video_vae import VideoVAE

KEPT = 8  # chunks whose latents are kept, for a re-roll
SKIPPED_AT_ONCE = 8  # latents that are encoded together where only what follows them is wanted
STRENGTH, SCHEDULE = 0.5, "rescaled"


class FrameSource(Protocol):
    """Frames at the session's rate and size, one after the other."""

    @property
    def live(self) -> bool:
        """Whether frames come in real time, so that they are taken as late as can be."""

    def restart(self) -> None:
        """Return to the first frame. A live source has no way back, and goes on."""

    def take(self, count: int) -> Tensor:
        """Return the next ``count`` frames [T, H, W, 3], in 0..1 or in 8 bits."""

    def ends_before(self, frame: int) -> bool:
        """Whether the video ends with the source, before this frame, up to which all have been taken."""


class VideoSource:
    """Gives each next chunk of a session the latents of what a stream of frames shows at its time.

    Frame k of the source goes with frame k of the video. The frames are encoded chunk by chunk, and the latents are
    those of the whole, see `ChunkEncoder`. They become a part of the session.

    Attributes:
        strength: How much of the next chunk is made anew, see `Session.with_source`. It may be set between chunks.
        vae: The encoder.
    """

    def __init__(
        self, frames: FrameSource, vae: VideoVAE, strength: float = STRENGTH, schedule: str = SCHEDULE
    ) -> None:
        """Take the frames of a stream.

        Args:
            frames: The stream.
            vae: Encodes them.
            strength: See above.
            schedule: See `Session.with_source`.

        Raises:
            ValueError: The VAE has no encoder.
        """
        if not vae.has_encoder:
            raise ValueError(
                "this VAE is a TAEHV without an encoder, and video to video encodes what it is given: take the VAE of "
                "the model, or a TAEHV file that has both"
            )
        self.strength, self.vae = strength, vae
        self._frames, self._schedule = frames, schedule
        self._factor, self._encoder = vae.temporal_factor, vae.stream_encoder()
        self._kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()  # by first latent frame and count
        self._must_restart = False  # the frames are ahead of the encoder

    @staticmethod
    def check_takes_source(session: Session) -> None:
        """Raise ValueError if the chunks of ``session`` begin with noise alone."""
        check_takes_source(session.config)
        if isinstance(session.noise, PublishedNoise):
            raise ValueError(SOURCE_AND_PUBLISHED)

    def begin(self, session: Session) -> None:
        """Read and encode what goes with the chunks that ``session`` has.

        Raises:
            ValueError: The source is over before the next one, or its frames cannot be read.
            OSError: Its frames cannot be read.
        """
        if self.is_over(session):
            raise ValueError(
                f"the source is too short: its frames have the times of the video's, which has "
                f"{video_frames(session.frames, self._factor)} already, and it ends before the next chunk. Give a "
                "longer source, or let it hold or loop at its end"
            )

    def give(self, session: Session) -> Session:
        """Return ``session`` with the source of its next chunk.

        A chunk of a live source that a rewind brought back is made from the frames that it was made from.

        Raises:
            ValueError: The session cannot have one, see `Session.with_source`, or the frames cannot be read.
            OSError: The frames cannot be read.
        """
        start, count = session.frames, session.config.frames_of_block(session.frames)
        recorded = session.source if self._frames.live and (start, count) not in self._kept else None
        latents = self._latents(start, count) if recorded is None else recorded.latents.get()
        return session.with_source(latents, self.strength, self._schedule)

    def prepare(self, start: int, count: int) -> None:
        """Encode the chunk of ``count`` latent frames that begins with ``start``, unless its frames are to come."""
        if not self._frames.live:
            self._latents(start, count)

    def is_over(self, session: Session) -> bool:
        """Whether the source has ended, and the video with it, before the next chunk of ``session``."""
        if not self._frames.live and (self._must_restart or self._encoder.at < session.frames):
            self._go_to(session.frames)
        return self._frames.ends_before(video_frames(session.frames, self._factor))

    def _latents(self, start: int, count: int) -> Tensor:
        latents = self._kept.get((start, count))
        if latents is None:
            self._go_to(start)
            latents = self._kept[start, count] = self._encode(count)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return latents

    def _go_to(self, start: int) -> None:
        """Bring the encoder to latent frame ``start``; that of a live source only behind the first frame of all."""
        begins_anew = start == 0 if self._frames.live else self._encoder.at > start
        if (begins_anew and self._encoder.at) or self._must_restart:
            self._frames.restart()
            self._encoder.reset()
            self._must_restart = False
        target = min(start, 1) if self._frames.live else start
        while self._encoder.at < target:
            self._encode(min(target - self._encoder.at, SKIPPED_AT_ONCE))

    def _encode(self, count: int) -> Tensor:
        """Encode the next ``count`` latents. A clip of which that fails begins again, since its frames are taken."""
        at, frames_for = self._encoder.at, self._encoder.frames_for
        try:
            return self._encoder(self._frames.take(frames_for(at + count) - frames_for(at))[None])
        except BaseException:
            if not self._frames.live:
                self._must_restart = True
            raise
