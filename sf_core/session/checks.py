"""Checks of what a session is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import RolloutConfig
from .blocks import Prompt

if TYPE_CHECKING:
    from ..model.forward import WanForward


def check_prompt(model: WanForward, prompt: Tensor, batch: int, words: str = "") -> Prompt:
    """The embeddings as a record. Raises ValueError for another width, length or batch, and for NaN."""
    model.check_text(prompt)
    if prompt.shape[0] not in (1, batch):
        raise ValueError(
            f"prompt embeddings for {prompt.shape[0]} videos, but the batch is {batch}; expected 1 or {batch}"
        )
    if not torch.isfinite(prompt).all():
        raise ValueError("the prompt embeddings hold NaN or Inf; check the text encoder")
    return Prompt(prompt, words)


def check_context(config: RolloutConfig, latents: Tensor, batch: int, frame: tuple[int, int, int]) -> None:
    """Raises ValueError unless ``latents`` can begin a video of ``batch`` frames of shape ``frame`` (C, H, W)."""
    channels, height, width = frame
    if latents.ndim != 5 or (latents.shape[1], *latents.shape[3:]) != frame or latents.shape[0] not in (1, batch):
        raise ValueError(
            f"context latents have the shape {list(latents.shape)}; expected "
            f"[{batch} or 1, {channels}, frames, {height}, {width}]"
        )
    if not torch.isfinite(latents).all():
        raise ValueError("the context latents hold NaN or Inf; check what encoded them")
    config.check_frames(latents.shape[2], "latent frames of context")
