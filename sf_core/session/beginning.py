"""The given frames that a video begins with."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .frame_counts import fitting_video_frames, video_frames
from .session import Session


def frames_to_begin_with(session: Session, frames: Tensor, temporal_factor: int) -> tuple[Session, Tensor]:
    """Choose what of given frames begins a video.

    Args:
        session: An empty session.
        frames: One picture or a clip [B, T, H, W, 3].
        temporal_factor: Frames of video for each latent frame.

    Returns:
        The session, set up for one picture if there is one, and the frames: the picture, shown still where the model
        knows whole chunks only, or the longest end of the clip whose latents cut into whole blocks.

    Raises:
        ValueError: The clip is too short.
    """
    if frames.shape[1] == 1:
        still = session.config.picture_frames
        if still is None:
            return for_one_image(session), frames
        return session, frames.expand(-1, video_frames(still, temporal_factor), -1, -1, -1)
    return session, frames[:, -fitting_video_frames(session.config, frames.shape[1], temporal_factor) :]


def for_one_image(session: Session) -> Session:
    """An empty session that one image can begin: one latent frame, the first block or a part of it."""
    if session.config.frames_of_block(0) == 1 or session.config.context_in_chunk:
        return session
    return replace(session, config=replace(session.config, first_chunk_frames=1))
