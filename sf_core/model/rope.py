"""Rotary positions in three dimensions (frame, row, column), for any frame index.

Half of each head's pairs go to the frame, a third each of the rest to row and column, as in Wan:
with ``c = head_dim // 2`` pairs, row and column get ``c // 3`` each and the frame the remainder.
Angles are computed in float64 on the CPU for each position, so there is no table to outgrow. A rotation is a unit
complex number, or its real and imaginary part on devices that may lack complex arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..cuda_streams import to_device_async

THETA = 10000.0


def _turns(positions: Tensor, pairs: int) -> Tensor:
    """Unit complex numbers [positions, pairs] that rotate each pair of an axis."""
    frequencies = THETA ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    angles = torch.outer(positions.to(torch.float64), frequencies)
    return torch.polar(torch.ones_like(angles), angles)


def rope_rotations(
    frames: Sequence[int], height: int, width: int, head_dim: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Rotations for the tokens of some frames, ordered frame, row, column.

    Args:
        frames: Absolute latent frames.
        height: Rows of tokens in a frame.
        width: Columns of tokens in a frame.
        head_dim: Width of an attention head.
        device: Device of the result.

    Returns:
        complex64 [frames * height * width, 1, head_dim // 2] on CPUs and CUDA GPUs; elsewhere the same numbers as
        float32 [frames * height * width, 1, head_dim // 2, 2].
    """
    pairs = head_dim // 2
    side = pairs // 3
    f = _turns(torch.tensor(list(frames), dtype=torch.int64), pairs - 2 * side)
    h = _turns(torch.arange(height), side)
    w = _turns(torch.arange(width), side)
    is_complex = torch.device(device).type in ("cpu", "cuda")  # DirectML and older versions of MPS have no such numbers
    parts = (turns.to(torch.complex64) for turns in (f, h, w))
    f, h, w = (to_device_async(part if is_complex else torch.view_as_real(part), device) for part in parts)
    grid, number = (len(f), height, width), f.shape[2:]  # no dimensions, or real and imaginary part
    full = torch.cat(
        [
            f[:, None, None].expand(*grid, -1, *number),
            h[None, :, None].expand(*grid, -1, *number),
            w[None, None, :].expand(*grid, -1, *number),
        ],
        dim=3,
    )
    return full.flatten(0, 2).unsqueeze(1)


def frame_rotation(shift: int, head_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """The rotation by ``shift`` frames alone: `rope_rotations` of one token at row and column 0, in fewer steps."""
    pairs = head_dim // 2
    frame = _turns(torch.tensor([shift]), pairs - 2 * (pairs // 3)).to(torch.complex64)
    full = torch.cat([frame, torch.ones(1, 2 * (pairs // 3), dtype=torch.complex64)], dim=1).unsqueeze(1)
    is_complex = torch.device(device).type in ("cpu", "cuda")
    return to_device_async(full if is_complex else torch.view_as_real(full), device)


def apply_rope(x: Tensor, rotations: Tensor) -> Tensor:
    """Rotate pairs (2i, 2i + 1) of ``x`` [B, tokens, heads, head_dim]; computed in float32, returned in x's dtype."""
    pairs = x.float().unflatten(-1, (-1, 2))
    is_complex = rotations.is_complex()
    if (
        torch.compiler.is_compiling() or not is_complex
    ):  # compiled, complex products are not fused with their neighbours
        numbers = torch.view_as_real(rotations) if is_complex else rotations
        (a, b), (cos, sin) = pairs.unbind(-1), numbers.unbind(-1)
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * rotations)
    return turned.flatten(-2).to(x.dtype)
