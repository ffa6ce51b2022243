"""Decoding what a session has: from where it was decoded to, with the live decoder if that is this session's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ...sf_core.session.session import Session
from ...sf_core.session.streaming import Decoder, history_for
from ...sf_core.vae.video_vae import VideoVAE
from ..adapters.fingerprint import token
from ..adapters.model import hosted
from ..adapters.wire_types import GraphSession


def decode_rest(session: GraphSession, ours: VideoVAE, vae: Any) -> Iterator[tuple[int, Tensor]]:
    """What was not decoded yet, block by block: (latent frames up to here, frames [B, T, H, W, 3])."""
    core, at = session.core, session.decoded
    decoder = take_decoder(core, at, ours, vae)
    for block in reversed([b for b in (core.head.back() if core.head else ()) if b.place.end > at]):
        latents = block.latents.get()
        frames = decoder(latents, at=at, history=history_for(decoder, core, at))
        at = block.place.end
        yield at, frames
    keep_decoder(core, at, decoder, vae)


def take_decoder(session: Session, at: int, ours: VideoVAE, vae: Any) -> Decoder:
    """The live decoder if it has decoded just this session's first ``at`` latent frames; else one at a beginning."""
    live = hosted(session).live
    found, live.decoder = live.decoder, None
    if found is not None and found[0] == _decoder_key(session, at, vae):
        decoder: Decoder = found[1]
        return decoder
    return ours.stream_decoder()


def keep_decoder(session: Session, at: int, decoder: Decoder, vae: Any) -> None:
    hosted(session).live.decoder = (_decoder_key(session, at, vae), decoder)


def _decoder_key(session: Session, at: int, vae: Any) -> tuple[str, bytes]:
    return token(vae.first_stage_model), lineage_at(session, at)


def lineage_at(session: Session, frames: int) -> bytes:
    """Names the past of the session's first ``frames`` latent frames, which end with a block."""
    blocks = session.head.back() if session.head else ()
    return next((block.lineage for block in blocks if block.place.end == frames), b"")
