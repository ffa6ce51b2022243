"""The Wan 2.1 video autoencoder: `load_vae`, `WanVAE` and its sizes, `WanVAEConfig`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..files.checkpoint import Source
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
    run,
    warmup_frames,
)
from .video_vae import Shapes, VideoVAE, load_into, vae_weights

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
        self.middle = _middle(width)
        self.head = _head(width, 2 * config.z_dim)

    def layers(self) -> list[nn.Module]:
        return [self.conv1, *self.downsamples, *self.middle, *self.head]


class _Decoder(nn.Module):
    """Latents to pixels [B, 3, T, H, W], about -1..1."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        width, temporal = config.widths[-1], config.temporal_downsample[::-1]
        self.conv1 = CausalConv(config.z_dim, width)
        self.middle = _middle(width)
        self.upsamples = nn.ModuleList()
        for level, outputs in enumerate(reversed(config.widths)):
            for _ in range(config.res_blocks + 1):
                self.upsamples.append(ResidualBlock(width, outputs))
                width = outputs
            if level < len(temporal):
                self.upsamples.append(Upsample(width, width // 2, temporal[level]))
                width //= 2
        self.head = _head(width, 3)

    def layers(self) -> list[nn.Module]:
        return [self.conv1, *self.middle, *self.upsamples, *self.head]


def _middle(width: int) -> nn.ModuleList:
    return nn.ModuleList([ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width)])


def _head(inputs: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList([RMSNorm(inputs), SiLU(), CausalConv(inputs, outputs)])


class WanVAE(VideoVAE):
    """The VAE of Wan 2.1, of any width and depth; parameters have their original names."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.conv1 = CausalConv(2 * config.z_dim, 2 * config.z_dim, 1, 1)
        self.conv2 = CausalConv(config.z_dim, config.z_dim, 1, 1)
        self.decoder = _Decoder(config)
        self.channels = config.z_dim
        self.register_buffer("mean", torch.empty(self.channels))
        self.register_buffer("std", torch.empty(self.channels))
        self.spatial_factor = 2 ** len(config.temporal_downsample)
        self.temporal_factor = 2 ** sum(config.temporal_downsample)
        self.history = -(-warmup_frames(self.decoder.layers()) // self.temporal_factor)

    def decode_next(self, latents: Tensor, state: StreamState) -> Tensor:
        """Decode the latents that follow those which ``state`` has seen, and advance it."""
        z = latents.to(self.std.device, torch.float32) * _per_channel(self.std) + _per_channel(self.mean)
        pixels = run([self.conv2, *self.decoder.layers()], self.at_weights(z), state)
        state.at_start = False
        return (pixels.movedim(1, -1).float() / 2 + 0.5).clamp(0, 1)

    def encode_parts(self, frames: Tensor) -> Tensor:
        """Encode frames that were checked, in 0..1 or in 8 bits."""
        step = self.temporal_factor * self.latents_at_once(*frames.shape[2:4])
        ends = tuple(range(1 + step - self.temporal_factor, frames.shape[1], step))
        state = self.state_type()
        return torch.cat([self._encode_next(part, state) for part in frames.tensor_split(ends, dim=1)], dim=2)

    def _encode_next(self, frames: Tensor, state: StreamState) -> Tensor:
        pixels = self.at_weights((to_floats(frames.to(self.std.device)).float() * 2 - 1).movedim(-1, 1))
        moments = run([*self.encoder.layers(), self.conv1], pixels, state)
        state.at_start = False
        mean = moments[:, : self.channels].float()
        return (mean - _per_channel(self.mean)) / _per_channel(self.std)


def _per_channel(values: Tensor) -> Tensor:
    return values.float()[:, None, None, None]


# Loading ------------------------------------------------------------------------------------------------------------


def load_vae(source: Source, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> WanVAE:
    """Load a Wan 2.1 VAE in Wan's original names.

    Args:
        source: A .safetensors, .pt or .pth file, or a state dict. The sizes are detected from its shapes. Its tensors
            ``mean`` and ``std``, if it has them, replace Wan's normalisation of the latents.
        device: Device of the weights.
        dtype: Of the weights, and of the computation.

    Raises:
        ValueError: The source is no such VAE; the message says what it is instead.
    """
    weights = vae_weights(source, "decoder.conv1.weight")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    _check_is_wan(shapes)
    try:
        with torch.device("meta"):
            vae = WanVAE(WanVAEConfig.of(shapes))
    except (ArithmeticError, RuntimeError) as error:
        raise ValueError(f"no Wan VAE has weights of such shapes ({error})") from error
    if "mean" not in weights and "std" not in weights:
        if vae.channels != len(WAN_MEAN):
            raise ValueError(
                f"this VAE has {vae.channels} latent channels, Wan 2.1's {len(WAN_MEAN)}; for another the weights must "
                "hold its normalisation, as tensors mean and std"
            )
        weights |= {"mean": torch.tensor(WAN_MEAN), "std": torch.tensor(WAN_STD)}
    load_into(vae, weights, device, dtype, "a whole Wan 2.1 VAE")
    return vae


def _check_is_wan(shapes: Shapes) -> None:
    sample = ", ".join(sorted(shapes)[:3]) or "nothing"
    if "decoder.conv_in.weight" in shapes or "decoder.mid_block.resnets.0.conv1.weight" in shapes:
        raise ValueError(
            "these are weights in the names of diffusers (AutoencoderKLWan, or another of its VAEs); give the file in "
            "Wan's original names: Wan2.1_VAE.pth, or ComfyUI's wan_2.1_vae.safetensors"
        )
    if any(name.startswith("decoder.upsamples.0.upsamples.") for name in shapes):
        raise ValueError("this is the VAE of Wan 2.2 (5B); Self Forcing models are Wan 2.1 ones and need its VAE")
    for name in ("decoder.conv1", "decoder.head.2", "encoder.conv1", "encoder.head.2", "conv1", "conv2"):
        shape = shapes.get(f"{name}.weight")
        if shape is None or len(shape) != 5:
            detail = f"it has {sample} ..." if shape is None else f"it has the shape {list(shape)}"
            raise ValueError(f"this is not a Wan 2.1 VAE: it has no 3-D convolution {name}.weight ({detail})")
