"""What a video may begin with: one image, or the end of a clip that cuts into whole blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .config import RolloutConfig

if TYPE_CHECKING:
    from .session import Session


def for_one_image(session: Session) -> Session:
    """One image is one latent frame: the first block has to be that long."""
    if session.config.frames_of_block(0) == 1:
        return session
    return replace(session, config=replace(session.config, first_chunk_frames=1))


def video_frames(latents: int, temporal_factor: int) -> int:
    """Frames of video that ``latents`` latent frames stand for: the first stands for one."""
    return 1 + temporal_factor * (latents - 1) if latents else 0


def fitting_latents(config: RolloutConfig, latents: int) -> int:
    """The most of ``latents`` frames that cut into a first block and whole chunks; 0 if not even the first fits."""
    first, chunk = config.frames_of_block(0), config.chunk_frames
    return 0 if latents < first else latents - (latents - first) % chunk


def fitting_frames(config: RolloutConfig, frames: int, temporal_factor: int) -> int:
    """The most of ``frames`` of video whose latents cut into whole blocks. Raises ValueError if there are too few."""
    fits = fitting_latents(config, (frames - 1) // temporal_factor + 1)
    if not fits:
        least = video_frames(config.frames_of_block(0), temporal_factor)
        raise ValueError(f"{frames} frames are too few to begin with: at least {least} are needed")
    return video_frames(fits, temporal_factor)


def check_context(session: Session, latents: Tensor) -> None:
    """Raises ValueError unless ``latents`` can begin ``session``, naming what could."""
    if session.head is not None:
        raise ValueError(f"context can only be given to an empty session; this one has {session.frames} latent frames")
    channels, batch = session.model.arch.in_dim, session.batch
    expected = (channels, *session.latent_size)
    if latents.ndim != 5 or (latents.shape[1], *latents.shape[3:]) != expected or latents.shape[0] not in (1, batch):
        raise ValueError(
            f"context latents have the shape {list(latents.shape)}; expected "
            f"[{batch} or 1, {expected[0]}, frames, {expected[1]}, {expected[2]}]"
        )
    if not torch.isfinite(latents).all():
        raise ValueError("the context latents hold NaN or Inf; check what encoded them")
    frames, fits = latents.shape[2], fitting_latents(session.config, latents.shape[2])
    if fits != frames:
        first, chunk = session.config.frames_of_block(0), session.config.chunk_frames
        near = [fits, fits + chunk] if fits else [first]
        raise ValueError(
            f"{frames} latent frames of context do not cut into a first block of {first} and blocks of {chunk}; "
            f"the nearest counts that do: {' or '.join(map(str, near))}"
        )
