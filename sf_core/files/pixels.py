"""Frames in 8 bits and as floating point."""

from __future__ import annotations

import torch
from torch import Tensor


def to_bytes(frames: Tensor) -> Tensor:
    """Frames in 0..1 as 8-bit numbers on the CPU: rounded where they are, so that a fourth of the bytes travels.

    Frames that are 8-bit numbers already stay as they are.
    """
    if frames.dtype == torch.uint8:
        return frames.cpu()
    return (frames.detach() * 255).round().clamp(0, 255).to(torch.uint8).cpu()


def to_floats(frames: Tensor) -> Tensor:
    """Frames as floating point in 0..1, from 8-bit numbers or unchanged."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames
