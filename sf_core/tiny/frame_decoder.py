"""The interim decoder of the tiny model: a convolutional autoencoder, each frame by itself, 16 times in space."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..checkpoint import read_safetensors


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = _conv(channels, channels)
        self.b = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.silu(self.a(F.silu(x))))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


class FrameDecoder:
    """Decodes chunk by chunk; each frame stands for itself, so there is nothing to remember."""

    history = 0
    temporal_factor = 1
    cache_bytes = 0

    def __init__(self, vae: FrameAutoencoder) -> None:
        self.at: int | None = 0
        self._vae = vae

    def reset(self) -> None:
        self.at = 0

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        frames = self._vae.decode(latents)
        self.at = at + latents.shape[2]
        return frames


class FrameAutoencoder(nn.Module):
    """Latents [B, 16, F, h, w] (normalised) to frames [B, F, 16 h, 16 w, 3] in 0..1, and back."""

    mean: Tensor
    std: Tensor
    spatial_factor = 16
    temporal_factor = 1
    channels = 16

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(
            *(_conv(16, 96), _Residual(96), nn.SiLU(), _conv(96, 256), nn.PixelShuffle(2)),
            *(_Residual(64), nn.SiLU(), _conv(64, 160), nn.PixelShuffle(2)),
            *(_Residual(40), nn.SiLU(), _conv(40, 48), nn.PixelShuffle(4)),
        )
        self.encoder = nn.Sequential(
            *(nn.PixelUnshuffle(4), _conv(48, 40), _Residual(40), nn.SiLU(), _conv(40, 64, stride=2)),
            *(_Residual(64), nn.SiLU(), _conv(64, 96, stride=2), _Residual(96), nn.SiLU(), nn.Conv2d(96, 32, 1)),
        )
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("std", torch.ones(16))

    @staticmethod
    def load(path: Path, device: str | torch.device, dtype: torch.dtype) -> FrameAutoencoder:
        state, _ = read_safetensors(path)
        vae = FrameAutoencoder()
        vae.load_state_dict(state)
        return vae.to(device, dtype).eval().requires_grad_(False)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames of ``latents``, float32."""
        z = rearrange(latents.to(self.mean), "b c f h w -> (b f) c h w")
        frames = self.decoder(z * self.std[:, None, None] + self.mean[:, None, None])
        pixels = rearrange(frames, "(b f) c h w -> b f h w c", b=latents.shape[0])
        return ((pixels.float() + 1) / 2).clamp(0, 1)

    def stream_decoder(self) -> FrameDecoder:
        """A decoder for `sf_core.stream`."""
        return FrameDecoder(self)

    def encode(self, frames: Tensor) -> Tensor:
        """Latents of ``frames`` [B, T, H, W, 3] in 0..1; H and W are multiples of 16."""
        pixels = rearrange(frames.to(self.mean) * 2 - 1, "b f h w c -> (b f) c h w")
        mean = self.encoder(pixels).chunk(2, dim=1)[0]
        z = (mean - self.mean[:, None, None]) / self.std[:, None, None]
        return rearrange(z, "(b f) c h w -> b c f h w", b=frames.shape[0]).float()
