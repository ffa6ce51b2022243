"""Arithmetic between frames of video and latent frames."""

from __future__ import annotations

from ..config import RolloutConfig


def video_frames(latents: int, temporal_factor: int) -> int:
    """Frames of video that ``latents`` latent frames stand for: the first stands for one."""
    return 1 + temporal_factor * (latents - 1) if latents else 0


def fitting_video_frames(config: RolloutConfig, frames: int, temporal_factor: int) -> int:
    """The most of ``frames`` of video whose latents cut into whole blocks. Raises ValueError if there are too few."""
    fits = config.fitting_frames((frames - 1) // temporal_factor + 1)
    if not fits:
        least = video_frames(config.frames_of_block(0), temporal_factor)
        raise ValueError(f"{frames} frames are too few to begin with: at least {least} are needed, or one, a picture")
    return video_frames(fits, temporal_factor)
