"""Sizes of a Wan 2.1 transformer, and its timestep embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..schedule import wide_dtype


@dataclass(frozen=True)
class WanArchitecture:
    """Sizes of a Wan 2.1 transformer. All but ``num_heads`` and ``text_len`` can be read off its weights."""

    dim: int
    ffn_dim: int
    num_layers: int
    num_heads: int
    text_dim: int = 4096
    text_len: int = 512
    freq_dim: int = 256
    in_dim: int = 16
    out_dim: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    qk_norm: bool = True
    cross_attn_norm: bool = True

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.dim // self.num_heads

    def token_grid(self, latent_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens in a latent frame of ``latent_size`` (height, width).

        Raises:
            ValueError: The size does not divide into patches; names the nearest that does.
        """
        rows, columns = latent_size
        _, ph, pw = self.patch_size
        if rows < ph or columns < pw or rows % ph or columns % pw:
            near = (max(ph, round(rows / ph) * ph), max(pw, round(columns / pw) * pw))
            raise ValueError(
                f"latent size {rows} x {columns} does not divide into patches of {ph} x {pw}; "
                f"the nearest that does is {near[0]} x {near[1]}"
            )
        return rows // ph, columns // pw

    def latent_size(self, width: int, height: int, spatial_factor: int) -> tuple[int, int]:
        """(height, width) of the latents of a video of ``width`` x ``height`` pixels.

        Args:
            width: In pixels.
            height: In pixels.
            spatial_factor: Pixels along an edge for each one of a latent.

        Raises:
            ValueError: The model makes no video of this size; the message names the nearest that it makes.
        """
        _, patch_rows, patch_columns = self.patch_size
        for name, pixels, patch in (("width", width, patch_columns), ("height", height, patch_rows)):
            unit = spatial_factor * patch
            if pixels % unit or pixels < unit:
                below = max(unit, pixels // unit * unit)
                raise ValueError(
                    f"{name} is {pixels} pixels; this model makes multiples of {unit}. "
                    f"The nearest are {below} and {below + unit}"
                )
        return height // spatial_factor, width // spatial_factor


PUBLISHED_SIZES = {  # the 5B is Wan 2.2's
    "1.3B": WanArchitecture(dim=1536, ffn_dim=8960, num_layers=30, num_heads=12),
    "5B": WanArchitecture(dim=3072, ffn_dim=14336, num_layers=30, num_heads=24, in_dim=48, out_dim=48),
    "14B": WanArchitecture(dim=5120, ffn_dim=13824, num_layers=40, num_heads=40),
}


def timestep_embedding(timestep: Tensor, dim: int) -> Tensor:
    """Sinusoid of ``timestep`` [...], cosines then sines -> [..., dim], in float64 where the device has it."""
    wide = wide_dtype(timestep.device)
    half = dim // 2
    frequencies = 10000.0 ** -(torch.arange(half, dtype=wide, device=timestep.device) / half)
    angles = timestep.to(wide).unsqueeze(-1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
