"""Decoding the rest of a session, with the decoder of the previous run if it is at the right place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ...sf_core.session.session import Session
from ...sf_core.session.stream_host import Decoder
from ...sf_core.session.streaming import history_for
from ...sf_core.vae.video_vae import VideoVAE
from ..adapters.fingerprint import token
from ..adapters.model import comfy_model
from ..adapters.wire_types import GraphSession


def decode_rest(session: GraphSession, ours: VideoVAE, vae: Any) -> Iterator[tuple[int, Tensor]]:
    """Decode the rest block by block. Yields (latent frames decoded so far, frames [B, T, H, W, 3])."""
    core, at = session.core, session.decoded
    decoder = take_decoder(core, at, ours, vae)
    for block in reversed([b for b in (core.head.back() if core.head else ()) if b.place.end > at]):
        latents = block.latents.get()
        frames = decoder(latents, at=at, history=history_for(decoder, core, at))
        at = block.place.end
        yield at, frames
    keep_decoder(core, at, decoder, vae)


def take_decoder(session: Session, at: int, ours: VideoVAE, vae: Any) -> Decoder:
    """Return the stored decoder if it has decoded exactly the first ``at`` latent frames, else a new one."""
    shared = comfy_model(session).shared
    stored, shared.decoder = shared.decoder, None
    if stored is not None and stored[0] == _decoder_key(session, at, vae):
        decoder: Decoder = stored[1]
        return decoder
    return ours.stream_decoder()


def keep_decoder(session: Session, at: int, decoder: Decoder, vae: Any) -> None:
    """Store a decoder that has decoded the first ``at`` latent frames of ``session``."""
    shared = comfy_model(session).shared
    shared.decoder = (_decoder_key(session, at, vae), decoder)
    shared.offer()


def _decoder_key(session: Session, at: int, vae: Any) -> tuple[str, bytes]:
    return token(vae.first_stage_model), lineage_at(session, at)


def lineage_at(session: Session, frames: int) -> bytes:
    """Return the lineage of the block that ends at latent frame ``frames``; no bytes if none does."""
    blocks = session.head.back() if session.head else ()
    return next((block.lineage for block in blocks if block.place.end == frames), b"")
