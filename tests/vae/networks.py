"""Random autoencoders and latents, and a stream over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sf_core.vae.chunk_decoder import ChunkDecoder
from sf_core.vae.video_vae import VideoVAE
from sf_core.vae.wan_vae import WanVAEConfig


def wan_vae_state(
    dim: int = 4,
    mult: tuple[int, ...] = (1, 2, 2),
    temporal: tuple[bool, ...] = (False, True),
    res_blocks: int = 1,
    channels: int = 6,
) -> dict[str, Tensor]:
    """Random weights in Wan's names, with the tensors ``mean`` and ``std`` of a VAE of other latents."""
    return random_vae_weights(WanVAEConfig(dim, channels, mult, res_blocks, temporal))


def random_vae_weights(config: WanVAEConfig) -> dict[str, Tensor]:
    """Random weights of a VAE's sizes, with the tensors ``mean`` and ``std`` of a VAE of other latents."""
    generator = torch.Generator().manual_seed(config.dim + config.res_blocks)
    state: dict[str, Tensor] = {}
    for name, shape in config.shapes.items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("gamma"):
            state[name] = 1 + 0.1 * values
        else:
            state[name] = values * (0.1 if name.endswith("bias") else values[0].numel() ** -0.5)
    state["mean"] = torch.randn(config.z_dim, generator=generator)
    state["std"] = 1 + torch.rand(config.z_dim, generator=generator)
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


def frames_for(vae: VideoVAE, frames: int, latent_size: tuple[int, int], seed: int = 0) -> Tensor:
    """Return a random clip whose latents have the size ``latent_size``."""
    rows, columns = (length * vae.spatial_factor for length in latent_size)
    return torch.rand(1, frames, rows, columns, 3, generator=torch.Generator().manual_seed(seed))


def stream(decoder: ChunkDecoder, latents: Tensor, sizes: list[int]) -> Tensor:
    """Decode ``latents`` in chunks of ``sizes``."""
    frames, at = [], 0
    for chunk in latents.split(sizes, dim=2):
        frames.append(decoder(chunk, at=at))
        at += chunk.shape[2]
    return torch.cat(frames, dim=1)


class Moves(TorchFunctionMode):
    """Records how many values a call of ``to`` moves from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is Tensor.to and args[0].device.type == "cpu" and result.device.type != "cpu":
            self.sizes.append(result.numel())
        return result


def frames_from(vae: VideoVAE, at: int) -> int:
    """Return the number of the first frame of latent ``at``."""
    return 1 + vae.temporal_factor * (at - 1) if at else 0
