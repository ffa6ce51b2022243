"""The Wan 2.2 video autoencoder (of its 5B model): `Wan22VAE` and its sizes, `Wan22VAEConfig`.

It differs from Wan 2.1's in three ways: 48 latent channels, a first step that folds 2 x 2 pixels into channels (so a
latent is 16 x 16 pixels), and levels with a shortcut of their own, which has no weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from .layers import CausalConv, Downsample, ResidualBlock, StatefulLayer, StreamState, Upsample, run, warmup_frames
from .video_vae import Shapes
from .wan_vae import WanVAE, WanVAEConfig, head_layers, middle_layers

# Of Wan 2.2's latents, per channel; tensors `mean` and `std` in a file take their place.
WAN22_MEAN = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.157, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.052, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
WAN22_STD = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)
PATCH = 2  # pixels along an edge that become channels


@dataclass(frozen=True)
class Wan22VAEConfig(WanVAEConfig):
    """Sizes of a Wan 2.2 VAE; the defaults are those of the published one.

    Args:
        decoder_dim: Channels at the decoder's full resolution; ``dim`` counts those of the encoder.
    """

    dim: int = 160
    z_dim: int = 48
    decoder_dim: int = 256

    @property
    def decoder_width(self) -> int:
        """Channels of the decoder's last level."""
        return self.decoder_dim

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights by their original names, without ``mean`` and ``std``."""
        with torch.device("meta"):
            return {name: tuple(weight.shape) for name, weight in Wan22VAE(self).named_parameters()}

    @staticmethod
    def of(shapes: Shapes) -> Wan22VAEConfig:
        """Detect the sizes from the shapes of the weights.

        Raises:
            ValueError: A level of the encoder has no residual block.
        """
        level_name = re.compile(r"encoder\.downsamples\.(\d{1,2})\.downsamples\.(\d{1,2})\.(.+)")
        levels: dict[int, dict[int, dict[str, tuple[int, ...]]]] = {}
        for name, shape in shapes.items():
            if match := level_name.fullmatch(name):
                levels.setdefault(int(match[1]), {}).setdefault(int(match[2]), {})[match[3]] = shape
        widths, blocks, temporal = [], [], []
        for number in range(1 + max(levels, default=0)):
            layers = levels.get(number, {}).values()
            residual = [layer["residual.2.weight"] for layer in layers if layer.get("residual.2.weight")]
            if not residual:
                raise ValueError(
                    f"this is not a whole Wan 2.2 VAE: level {number} of its encoder has no residual block"
                )
            widths.append(residual[-1][0])
            blocks.append(len(residual))
            temporal += [any("time_conv" in name for name in layer) for layer in layers if "resample.1.weight" in layer]
        dim, decoder_dim = shapes["encoder.conv1.weight"][0], shapes["decoder.head.2.weight"][1]
        mult = tuple(width // dim for width in widths)
        return Wan22VAEConfig(dim, shapes["conv2.weight"][0], mult, max(blocks), tuple(temporal), decoder_dim)


class DownLevel(StatefulLayer):
    """Residual blocks and, but for the last level, a step to half the size; and a shortcut: means over groups.

    The shortcut folds the pixels (and frames) that become one into channels, and averages adjacent channels.
    """

    def __init__(self, inputs: int, outputs: int, res_blocks: int, smaller: bool, temporal: bool) -> None:
        super().__init__()
        self.downsamples = nn.ModuleList()
        for block in range(res_blocks):
            self.downsamples.append(ResidualBlock(outputs if block else inputs, outputs))
        if smaller:
            self.downsamples.append(Downsample(outputs, outputs, temporal))
        self.outputs, self.space, self.time_stride = outputs, 1 + smaller, 1 + temporal

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """Apply the level to [B, C, T, H, W]."""
        return run(self.downsamples, x, state) + self._shortcut(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        # the first frame of a video has no partner; zeros stand for it
        x = nn.functional.pad(x, (0, 0, 0, 0, -x.shape[2] % self.time_stride, 0))
        folded = "b c (t p) (h q) (w r) -> b t h w (c p q r)"
        cells = rearrange(x, folded, p=self.time_stride, q=self.space, r=self.space)
        return cells.unflatten(-1, (self.outputs, -1)).mean(dim=-1).movedim(-1, 1)

    def warmup_frames(self, frames: int) -> int:
        """Count the warm-up frames of the output."""
        return warmup_frames(self.downsamples, frames)


class UpLevel(StatefulLayer):
    """Residual blocks and, but for the last level, a step to twice the size with a shortcut: repeated channels."""

    def __init__(self, inputs: int, outputs: int, res_blocks: int, larger: bool, temporal: bool) -> None:
        super().__init__()
        self.upsamples = nn.ModuleList()
        for block in range(res_blocks):
            self.upsamples.append(ResidualBlock(outputs if block else inputs, outputs))
        if larger:
            self.upsamples.append(Upsample(outputs, outputs, temporal))
        self.larger, self.time = larger, 1 + temporal
        self.repeats = outputs * 4 * self.time // inputs

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """Apply the level to [B, C, T, H, W]."""
        y = run(self.upsamples, x, state)
        return y + self._shortcut(x, state.at_start) if self.larger else y

    def _shortcut(self, x: Tensor, at_start: bool) -> Tensor:
        cells = x.movedim(1, -1).repeat_interleave(self.repeats, dim=-1)
        unfolded = "b t h w (c p q r) -> b (t p) (h q) (w r) c"
        y = rearrange(cells, unfolded, p=self.time, q=2, r=2).movedim(-1, 1)
        return y[:, :, self.time - 1 :] if at_start else y  # the first frame of a video is not doubled

    def warmup_frames(self, frames: int) -> int:
        """Count the warm-up frames of the output."""
        return warmup_frames(self.upsamples, frames)


class _Encoder(nn.Module):
    """Folded pixels [B, 12, T, H, W] in -1..1 to the means and log-variances of latents."""

    def __init__(self, config: Wan22VAEConfig) -> None:
        super().__init__()
        width = config.dim
        self.conv1 = CausalConv(3 * PATCH**2, width)
        self.downsamples = nn.ModuleList()
        for outputs, temporal in zip(config.widths, (*config.temporal_downsample, None), strict=True):
            self.downsamples.append(
                DownLevel(width, outputs, config.res_blocks, temporal is not None, temporal or False)
            )
            width = outputs
        self.middle = middle_layers(width)
        self.head = head_layers(width, 2 * config.z_dim)

    def layers(self) -> list[nn.Module]:
        return [self.conv1, *self.downsamples, *self.middle, *self.head]


class _Decoder(nn.Module):
    """Latents to folded pixels [B, 12, T, H, W], about -1..1."""

    def __init__(self, config: Wan22VAEConfig) -> None:
        super().__init__()
        widths = [config.decoder_dim * factor for factor in reversed(config.dim_mult)]
        width = widths[0]
        self.conv1 = CausalConv(config.z_dim, width)
        self.middle = middle_layers(width)
        self.upsamples = nn.ModuleList()
        for outputs, temporal in zip(widths, (*reversed(config.temporal_downsample), None), strict=True):
            self.upsamples.append(
                UpLevel(width, outputs, config.res_blocks + 1, temporal is not None, temporal or False)
            )
            width = outputs
        self.head = head_layers(width, 3 * PATCH**2)

    def layers(self) -> list[nn.Module]:
        return [self.conv1, *self.middle, *self.upsamples, *self.head]


class Wan22VAE(WanVAE):
    """The VAE of Wan 2.2's 5B model, of any width and depth; parameters have their original names."""

    patch = PATCH

    def __init__(self, config: Wan22VAEConfig) -> None:
        super().__init__(config, _Encoder(config), _Decoder(config))

    def fold(self, pixels: Tensor) -> Tensor:
        """Fold cells of 2 x 2 pixels into channels: index 4 * colour + 2 * column + row."""
        return rearrange(pixels, "b c t (h q) (w r) -> b (c r q) t h w", q=PATCH, r=PATCH)

    def unfold(self, folded: Tensor) -> Tensor:
        """Undo `fold`."""
        return rearrange(folded, "b (c r q) t h w -> b c t (h q) (w r)", q=PATCH, r=PATCH)
