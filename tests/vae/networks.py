"""Random autoencoders and latents, and a stream over them."""

from __future__ import annotations

import torch
from torch import Tensor

from sf_core.vae.wan_vae import ChunkDecoder, VideoVAE


def wan_vae_state(
    dim: int = 4,
    mult: tuple[int, ...] = (1, 2, 2),
    temporal: tuple[bool, ...] = (False, True),
    res_blocks: int = 1,
    channels: int = 6,
) -> dict[str, Tensor]:
    """Random weights in Wan's names; ``mean`` and ``std`` beside them, as a VAE of other latents has."""
    generator = torch.Generator().manual_seed(dim + res_blocks)
    state: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, *kernel: int) -> None:
        fan_in = inputs * torch.Size(kernel).numel()
        state[f"{name}.weight"] = torch.randn(outputs, inputs, *kernel, generator=generator) * fan_in**-0.5
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1

    def norm(name: str, size: int, *ones: int) -> None:
        state[f"{name}.gamma"] = 1 + 0.1 * torch.randn(size, *ones, generator=generator)

    def residual(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.residual.0", inputs, 1, 1, 1)
        conv(f"{name}.residual.2", inputs, outputs, 3, 3, 3)
        norm(f"{name}.residual.3", outputs, 1, 1, 1)
        conv(f"{name}.residual.6", outputs, outputs, 3, 3, 3)
        if inputs != outputs:
            conv(f"{name}.shortcut", inputs, outputs, 1, 1, 1)

    def middle(name: str, size: int) -> None:
        residual(f"{name}.0", size, size)
        norm(f"{name}.1.norm", size, 1, 1)
        conv(f"{name}.1.to_qkv", size, 3 * size, 1, 1)
        conv(f"{name}.1.proj", size, size, 1, 1)
        residual(f"{name}.2", size, size)

    widths, index = [dim * factor for factor in mult], 0
    size = dim
    conv("encoder.conv1", 3, dim, 3, 3, 3)
    for level, width in enumerate(widths):
        for _ in range(res_blocks):
            residual(f"encoder.downsamples.{index}", size, width)
            size, index = width, index + 1
        if level < len(temporal):
            conv(f"encoder.downsamples.{index}.resample.1", size, size, 3, 3)
            if temporal[level]:
                conv(f"encoder.downsamples.{index}.time_conv", size, size, 3, 1, 1)
            index += 1
    middle("encoder.middle", size)
    norm("encoder.head.0", size, 1, 1, 1)
    conv("encoder.head.2", size, 2 * channels, 3, 3, 3)
    conv("conv1", 2 * channels, 2 * channels, 1, 1, 1)
    conv("conv2", channels, channels, 1, 1, 1)
    conv("decoder.conv1", channels, size, 3, 3, 3)
    middle("decoder.middle", size)
    index = 0
    for level, width in enumerate(reversed(widths)):
        for _ in range(res_blocks + 1):
            residual(f"decoder.upsamples.{index}", size, width)
            size, index = width, index + 1
        if level < len(temporal):
            conv(f"decoder.upsamples.{index}.resample.1", size, size // 2, 3, 3)
            if temporal[-1 - level]:
                conv(f"decoder.upsamples.{index}.time_conv", size, 2 * size, 3, 1, 1)
            size, index = size // 2, index + 1
    norm("decoder.head.0", size, 1, 1, 1)
    conv("decoder.head.2", size, 3, 3, 3, 3)
    state["mean"] = torch.randn(channels, generator=generator)
    state["std"] = 1 + torch.rand(channels, generator=generator)
    return state


def taehv_state(
    widths: tuple[int, ...] = (12, 8, 6, 6), times: tuple[int, ...] = (1, 2, 2), channels: int = 16, colours: int = 3
) -> dict[str, Tensor]:
    """Random weights in the layout of ``taew2_1``, of other widths."""
    generator = torch.Generator().manual_seed(sum(widths))
    state: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, kernel: int = 3, bias: bool = False) -> None:
        scale = (2 / (inputs * kernel * kernel)) ** 0.5
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * scale
        if bias:
            state[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1

    def memory_blocks(part: str, first: int, width: int) -> None:
        for index in range(first, first + 3):
            conv(f"{part}.{index}.conv.0", 2 * width, width, bias=True)
            conv(f"{part}.{index}.conv.2", width, width, bias=True)
            conv(f"{part}.{index}.conv.4", width, width, bias=True)

    conv("decoder.1", channels, widths[0], bias=True)
    for stage, (width, following, time) in enumerate(zip(widths, widths[1:], times, strict=False)):
        memory_blocks("decoder", 3 + 6 * stage, width)
        conv(f"decoder.{7 + 6 * stage}.conv", width, width * time, kernel=1)
        conv(f"decoder.{8 + 6 * stage}", width, following)
    conv("decoder.22", widths[3], colours, bias=True)
    width = widths[-1]
    conv("encoder.0", colours, width, bias=True)
    for stage, time in enumerate(reversed(times)):
        conv(f"encoder.{2 + 5 * stage}.conv", width * time, width, kernel=1)
        conv(f"encoder.{3 + 5 * stage}", width, width)
        memory_blocks("encoder", 4 + 5 * stage, width)
    conv("encoder.17", width, channels, bias=True)
    return state


def latents_for(vae: VideoVAE, frames: int, size: tuple[int, int] = (2, 2), batch: int = 1, seed: int = 0) -> Tensor:
    """Return random latents of the VAE's channels."""
    return torch.randn(batch, vae.channels, frames, *size, generator=torch.Generator().manual_seed(seed))


def stream(decoder: ChunkDecoder, latents: Tensor, sizes: list[int]) -> Tensor:
    """Decode ``latents`` in chunks of ``sizes``."""
    frames, at = [], 0
    for chunk in latents.split(sizes, dim=2):
        frames.append(decoder(chunk, at=at))
        at += chunk.shape[2]
    return torch.cat(frames, dim=1)


def frames_from(vae: VideoVAE, at: int) -> int:
    """Return the number of the first frame of latent ``at``."""
    return 1 + vae.temporal_factor * (at - 1) if at else 0
