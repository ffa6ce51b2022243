"""The picture that a recomputed context begins with (Krea), made with a VAE."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..vae.video_vae import VideoVAE
from .record import SessionRecord
from .session import Session


def with_vae(session: Session, vae: VideoVAE) -> Session:
    """A session that encodes the first frame of each context anew with ``vae``, if its settings ask for it."""
    return replace(session, reencode=Reencoder(vae)) if session.config.context == "recompute" else session


class Reencoder:
    """Decodes the last picture of the latent frame that a context begins with, and encodes it alone, as an image."""

    def __init__(self, vae: VideoVAE) -> None:
        self._vae = vae

    def __call__(self, session: SessionRecord) -> Tensor:
        """The latent frame [B, C, 1, H, W]; see `record.Reencode`."""
        at, decoder = session.frames - session.config.context_frames, self._vae.stream_decoder()
        history = session.latents_between(max(0, at - decoder.history), at)
        with torch.inference_mode(False), torch.no_grad():
            frames = decoder(session.latents_between(at, at + 1), at=at, history=history)
            return self._vae.encode(frames[:, -1:])
