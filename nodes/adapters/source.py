"""What Video Source puts on a wire, and how a run opens it: frames of the session's size and rate, encoded by a VAE."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfy_api.v0_0_2 import InputImpl
from torch import Tensor

from ...sf_core.cancellation import Cancellation
from ...sf_core.memory_ledger import DecoderCost
from ...sf_core.session.session import Session
from ...sf_core.sources.clip import Clip, ClipFrames, PictureClip
from ...sf_core.sources.file_clip import FileClip
from ...sf_core.sources.video_source import VideoSource
from ...sf_core.vae.video_vae import VideoVAE
from .images import fit_pictures
from .model import comfy_model
from .vae import check_fits, open_vae


@dataclass(frozen=True, eq=False)
class GraphSource:
    """A source on a wire. Nothing of it is read or encoded before a run opens it.

    Attributes:
        clip: IMAGE [T, H, W, C], which has the rate of the session, or a VIDEO, which has its own.
        vae: Encodes the frames.
        strength: See `Session.with_source`.
        schedule: See `Session.with_source`.
        fit: ``crop`` or ``pad``.
        at_end: See `ClipFrames`.
    """

    clip: Any
    vae: Any
    strength: float
    schedule: str
    fit: str
    at_end: str

    def open(self, session: Session, fps: float, cancellation: Cancellation) -> VideoSource:
        """Open the source for one run.

        Args:
            session: The session to extend.
            fps: Frames a second of its video.
            cancellation: Polled by the encoder at every layer.

        Raises:
            ValueError: The settings of the session have no room for a source, the VAE is of another model or has no
                encoder, or the clip holds no frame.
        """
        VideoSource.check_takes_source(session)
        ours = open_vae(self.vae, cancellation)
        check_fits(ours, comfy_model(session))
        rows, columns = (length * ours.spatial_factor for length in session.latent_size)
        frames = ClipFrames(self._read((rows, columns), fps), self.at_end)
        return VideoSource(frames, ours, self.strength, self.schedule)

    def _read(self, size: tuple[int, int], fps: float) -> Clip:
        if isinstance(self.clip, Tensor):
            return PictureClip(_Scaled(self.clip, size, self.fit))
        if isinstance(self.clip, InputImpl.VideoFromFile):
            file = self.clip.get_stream_source()
            window = getattr(self.clip, "get_active_trim_window", lambda: (0.0, 0.0))()  # newer versions trim
            return FileClip(file if isinstance(file, io.BytesIO) else Path(file), size, fps, self.fit, *window)
        parts = self.clip.get_components()
        return PictureClip(_Scaled(parts.images, size, self.fit), float(parts.frame_rate), fps)


def cost_with(encoder: VideoVAE, decoder: VideoVAE | None) -> DecoderCost:
    """Return what an encoder and a decoder take together; encoding takes no more than decoding."""
    cost = DecoderCost.of(encoder)
    if decoder is None or decoder is encoder:
        return cost
    other = DecoderCost.of(decoder)
    larger = max((cost, other), key=lambda one: one.peak)
    return replace(larger, weights=cost.weights + other.weights)


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Pictures that are scaled when they are reached."""

    images: Tensor
    size: tuple[int, int]
    fit: str

    def __iter__(self) -> Iterator[Tensor]:
        rows, columns = self.size
        return (fit_pictures(one[None], columns, rows, self.fit)[0] for one in self.images)
