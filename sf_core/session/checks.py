"""Checks of the prompts and latents that a session receives."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..model.causal_model import CausalModel
from .blocks import Prompt


def check_prompt(model: CausalModel, prompt: Tensor, batch: int, words: str = "") -> Prompt:
    """The embeddings as a `Prompt`. Raises ValueError for a wrong width, length or batch, and for NaN."""
    model.check_text(prompt)
    if prompt.shape[0] not in (1, batch):
        raise ValueError(
            f"prompt embeddings for {prompt.shape[0]} videos, but the batch is {batch}; expected 1 or {batch}"
        )
    if not torch.isfinite(prompt).all():
        raise ValueError("the prompt embeddings hold NaN or Inf; check the text encoder")
    return Prompt(prompt, words)


def check_context(config: RolloutConfig, latents: Tensor, batch: int, frame: tuple[int, int, int]) -> None:
    """Check that ``latents`` can begin a video.

    Args:
        config: Rollout settings; the latents must cut into whole blocks, or be the one frame inside the first chunk.
        latents: The context [B or 1, C, F, H, W].
        batch: Number of videos that are made together.
        frame: Channels, height and width of a latent frame.

    Raises:
        ValueError: A wrong shape or count, naming the nearest counts that fit, or NaN.
    """
    channels, height, width = frame
    if latents.ndim != 5 or (latents.shape[1], *latents.shape[3:]) != frame or latents.shape[0] not in (1, batch):
        raise ValueError(
            f"context latents have the shape {list(latents.shape)}; expected "
            f"[{batch} or 1, {channels}, frames, {height}, {width}]"
        )
    if not torch.isfinite(latents).all():
        raise ValueError("the context latents hold NaN or Inf; check what encoded them")
    if not (config.context_in_chunk and latents.shape[2] == 1):
        config.check_frames(latents.shape[2], "latent frames of context")


def check_recache(config: RolloutConfig, recache: bool | str, recache_sink: bool) -> None:
    """Check a recache of `Session.with_prompt`. Raises ValueError for one that makes no sense with the settings."""
    if recache not in (False, True, "joint"):
        raise ValueError(f"recache is {recache!r}; expected False, True or 'joint'")
    if (recache or recache_sink) and (config.pin_shots or config.shot_offset):
        raise ValueError(
            "recache does not go together with pin_shots and shot_offset: the window holds frames of several shots. "
            "Change the prompt without recache, or begin a shot (with_shot)"
        )
    if recache and config.context == "recompute":
        raise ValueError(
            "context='recompute' passes the newest frames again before each chunk, under the prompt that the newest of "
            "them was made with: switch the prompt without a recache"
        )
    if recache_sink and config.sink_average is not None:
        raise ValueError(
            "recache_sink would lose the average that the sink is (sink_average), of all that has left the window: "
            "recache without the sink, or begin a new scene with a cut"
        )
    window, chunk = config.window_frames, config.chunk_frames
    if recache == "joint" and recache_sink and window is not None and window % chunk:
        raise ValueError(
            f"a joint recache with recache_sink begins the sink at a chunk, but a window of {window} frames does not "
            f"cut into chunks of {chunk}: leave out recache_sink, or take a window of whole chunks"
        )


def check_reencoded(latents: Tensor, batch: int, frame: tuple[int, int, int]) -> None:
    """Check a re-encoded frame. Raises ValueError unless it is one finite latent frame [B or 1, C, 1, H, W]."""
    channels, height, width = frame
    if tuple(latents.shape) not in {(count, channels, 1, height, width) for count in (1, batch)}:
        raise ValueError(
            f"reencode gave latents of the shape {list(latents.shape)}; expected one frame, "
            f"[{batch} or 1, {channels}, 1, {height}, {width}]"
        )
    if not torch.isfinite(latents).all():
        raise ValueError("reencode gave latents with NaN or Inf; check the VAE")
