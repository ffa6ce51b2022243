"""Chunks that were made before: what names them, and whether a kept one can be a session's next.

`Session.next_key`, `newest_chunk` and `with_chunk` use it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..hashing import digest, tensor_digest
from .archive import StoredLatents
from .next_chunk import encode_anew
from .noise_record import facts_of
from .published_noise import chunks_left
from .record import SessionRecord
from .rolling import InFlight, steps_after


def key_of_next(session: SessionRecord) -> bytes:
    """Digest of everything that the next chunk of ``session`` is made from; see `Session.next_key`."""
    noise = facts_of(session.noise)
    if noise is None:
        raise ValueError("a chunk made from a caller's own noise has no key")
    past = session.head.lineage if session.head else session.root
    encode_anew(session)
    if session.head is not None and session.head.reencoded is not None:
        past = digest(past, tensor_digest(session.head.reencoded.on_cpu()))
    made = [repr((noise, session.chunks, session.event.code)).encode()]
    if session.flights is not None:
        made.append(tensor_digest(session.flights.latents.on_cpu()))
    if session.source is not None:
        made.append(session.source.digest)
    return digest(past, session.prompt.digest, *made)


def tensors_of_newest(session: SessionRecord) -> dict[str, Tensor]:
    """What the newest chunk of ``session`` is made again from; see `Session.newest_chunk`."""
    if session.head is None:
        raise ValueError("an empty session has no chunk")
    flying = None if session.flights is None else session.flights.latents
    kept = {"latents": session.head.latents, "noisy": session.head.noisy, "flights": flying}
    return {name: stored.on_cpu() for name, stored in kept.items() if stored is not None}


def check_kept(session: SessionRecord, latents: Tensor, noisy: Tensor | None) -> None:
    """Check that kept latents can be the next chunk of ``session``. Raises ValueError if they cannot."""
    frames = session.config.frames_of_block(session.frames)
    expected = (session.batch, session.model.arch.in_dim, frames, *session.latent_size)
    if (noisy is not None) != session.keeps_last_step:
        raise ValueError("a kept chunk needs 'noisy' with context_from_last_step, after the first block, only then")
    for kept in (latents, *(() if noisy is None else (noisy,))):
        if tuple(kept.shape) != expected or not torch.isfinite(kept).all():
            raise ValueError(f"a kept chunk has the shape {list(kept.shape)} or is not finite; expected {expected}")


def kept_flights(session: SessionRecord, latents: Tensor | None) -> InFlight | None:
    """What is in flight behind a kept chunk, None for nothing. Raises ValueError unless ``latents`` can be it."""
    config, start = session.config, session.frames
    flying = None if session.event.cut else session.flights
    steps = steps_after(
        () if flying is None else flying.steps, len(config.timesteps(session.chunks)), chunks_left(session)
    )
    frames = sum(config.frames_of_flights(start + config.frames_of_block(start), len(steps)))
    shape = (session.batch, session.model.arch.in_dim, frames, *session.latent_size)
    if not steps and latents is None:
        return None
    if latents is None or tuple(latents.shape) != shape or not torch.isfinite(latents).all():
        raise ValueError(f"a kept chunk of a rolling schedule needs 'flights', what is in flight behind it: {shape}")
    return InFlight(steps, StoredLatents(latents.to(session.model.device, torch.float32)))
