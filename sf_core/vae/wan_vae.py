"""The Wan 2.1 video autoencoder: `WanVAE` and its sizes, `WanVAEConfig`. loading.py reads files of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..files.pixels import to_floats
from .layers import (
    AttentionBlock,
    CausalConv,
    Downsample,
    ResidualBlock,
    RMSNorm,
    SiLU,
    StreamState,
    Upsample,
    run_sparing,
    warmup_frames,
)
from .video_vae import Shapes, VideoVAE

# Of Wan 2.1's latents, per channel; tensors `mean` and `std` in a file take their place.
WAN_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
WAN_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclass(frozen=True)
class WanVAEConfig:
    """Sizes of a Wan 2.1 VAE; the defaults are those of the published one.

    Args:
        dim: Channels at full resolution.
        z_dim: Channels of the latents.
        dim_mult: Channels of each level, as a multiple of ``dim``. A level has half the height and width of the one
            before it.
        res_blocks: Residual blocks on each level of the encoder; the decoder has one more.
        temporal_downsample: For each step from a level to the next, whether it also halves the frame rate.

    Raises:
        ValueError: ``temporal_downsample`` does not have one entry for each step.
    """

    dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)

    def __post_init__(self) -> None:
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise ValueError(
                f"temporal_downsample has {len(self.temporal_downsample)} entries; expected {len(self.dim_mult) - 1}: "
                f"one for each step between the {len(self.dim_mult)} levels of dim_mult"
            )

    @property
    def decoder_width(self) -> int:
        """Channels of the decoder's last level."""
        return self.dim

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.dim * factor for factor in self.dim_mult)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by their original names, without ``mean`` and ``std``."""
        with torch.device("meta"):
            return {name: tuple(weight.shape) for name, weight in WanVAE(self).named_parameters()}

    @staticmethod
    def of(shapes: Shapes) -> WanVAEConfig:
        """Detect the sizes from the shapes of the encoder's weights.

        Raises:
            ValueError: A level of the encoder has no residual block.
        """
        widths: list[list[int]] = [[]]  # of the residual blocks, by level
        temporal = []
        numbers = {int(match[1]) for name in shapes if (match := re.match(r"encoder\.downsamples\.(\d{1,2})\.", name))}
        for name in (f"encoder.downsamples.{number}" for number in sorted(numbers)):
            if f"{name}.resample.1.weight" in shapes:
                temporal.append(f"{name}.time_conv.weight" in shapes)
                widths.append([])
            else:
                widths[-1] += shapes.get(f"{name}.residual.2.weight", ())[:1]
        if not all(widths):
            raise ValueError(
                f"this is not a whole Wan 2.1 VAE: level {widths.index([])} of its encoder has no residual block"
            )
        dim = shapes["encoder.conv1.weight"][0]
        mult = tuple(level[-1] // dim for level in widths)
        return WanVAEConfig(dim, shapes["conv2.weight"][0], mult, max(map(len, widths)), tuple(temporal))


class _Encoder(nn.Module):
    """Pixels [B, 3, T, H, W] in -1..1 to the means and log-variances of latents."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        width = config.dim
        self.conv1 = CausalConv(3, width)
        self.downsamples = nn.ModuleList()
        for level, outputs in enumerate(config.widths):
            for _ in range(config.res_blocks):
                self.downsamples.append(ResidualBlock(width, outputs))
                width = outputs
            if level < len(config.temporal_downsample):
                self.downsamples.append(Downsample(width, width, config.temporal_downsample[level]))
        self.middle = middle_layers(width)
        self.head = head_layers(width, 2 * config.z_dim)

    def layers(self) -> list[nn.Module]:
        return [self.conv1, *self.downsamples, *self.middle, *self.head]


class _Decoder(nn.Module):
    """Latents to pixels [B, 3, T, H, W], about -1..1."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        width, temporal = config.widths[-1], config.temporal_downsample[::-1]
        self.conv1 = CausalConv(config.z_dim, width)
        self.middle = middle_layers(width)
        self.upsamples = nn.ModuleList()
        for level, outputs in enumerate(reversed(config.widths)):
            for _ in range(config.res_blocks + 1):
                self.upsamples.append(ResidualBlock(width, outputs))
                width = outputs
            if level < len(temporal):
                self.upsamples.append(Upsample(width, width // 2, temporal[level]))
                width //= 2
        self.head = head_layers(width, 3)

    def layers(self) -> list[nn.Module]:
        return [self.conv1, *self.middle, *self.upsamples, *self.head]


def middle_layers(width: int) -> nn.ModuleList:
    """The layers at the lowest resolution."""
    return nn.ModuleList([ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width)])


def head_layers(inputs: int, outputs: int) -> nn.ModuleList:
    """The last layers of an encoder or a decoder."""
    return nn.ModuleList([RMSNorm(inputs), SiLU(), CausalConv(inputs, outputs)])


class WanVAE(VideoVAE):
    """The VAE of Wan 2.1, of any width and depth; parameters have their original names."""

    mean: Tensor
    std: Tensor
    patch = 1  # pixels along an edge that become channels before the encoder

    def __init__(self, config: WanVAEConfig, encoder: Any = None, decoder: Any = None) -> None:
        """Build the network.

        Args:
            config: Sizes.
            encoder: A network with ``layers``, from pixels to moments. None: Wan 2.1's.
            decoder: A network with ``layers``, from latents to pixels. None: Wan 2.1's.
        """
        super().__init__()
        self.config = config
        self.encoder = encoder or _Encoder(config)
        self.conv1 = CausalConv(2 * config.z_dim, 2 * config.z_dim, 1, 1)
        self.conv2 = CausalConv(config.z_dim, config.z_dim, 1, 1)
        self.decoder = decoder or _Decoder(config)
        self.channels = config.z_dim
        self.register_buffer("mean", torch.empty(self.channels))
        self.register_buffer("std", torch.empty(self.channels))
        self.spatial_factor = self.patch * 2 ** len(config.temporal_downsample)
        self.temporal_factor = 2 ** sum(config.temporal_downsample)
        self.history = -(-warmup_frames(self.decoder.layers()) // self.temporal_factor)

    def fold(self, pixels: Tensor) -> Tensor:
        """Fold cells of pixels [B, 3, T, H, W] into channels, as the encoder takes them."""
        return pixels

    def unfold(self, folded: Tensor) -> Tensor:
        """Undo `fold`: the decoder's output as pixels [B, 3, T, H, W]."""
        return folded

    def decode_next(self, latents: Tensor, state: StreamState) -> Tensor:
        """Decode the latents that follow those which ``state`` has seen, and advance it."""
        z = latents.to(self.std.device, torch.float32) * _per_channel(self.std) + _per_channel(self.mean)
        pixels = self.unfold(run_sparing([self.conv2, *self.decoder.layers()], self.at_weights(z), state))
        state.at_start = False
        return (pixels.movedim(1, -1).float() / 2 + 0.5).clamp(0, 1)

    def encode_next(self, frames: Tensor, state: StreamState) -> Tensor:
        """See `VideoVAE.encode_next`."""
        step = self.temporal_factor * (1 if state.sparing else self.latents_at_once(*frames.shape[2:4]))
        first = 1 + step - self.temporal_factor if state.at_start else step
        ends = tuple(range(first, frames.shape[1], step))
        return torch.cat([self._encode_part(part, state) for part in frames.tensor_split(ends, dim=1)], dim=2)

    def _encode_part(self, frames: Tensor, state: StreamState) -> Tensor:
        pixels = (to_floats(frames.to(self.std.device)).float() * 2 - 1).movedim(-1, 1)
        moments = run_sparing([*self.encoder.layers(), self.conv1], self.at_weights(self.fold(pixels)), state)
        state.at_start = False
        mean = moments[:, : self.channels].float()
        return (mean - _per_channel(self.mean)) / _per_channel(self.std)


def _per_channel(values: Tensor) -> Tensor:
    return values.float()[:, None, None, None]
