"""TAEHV, the tiny video autoencoder (madebyollin's ``taew2_1`` for Wan 2.1): `load_taehv`.

It works on frames one by one; only its memory blocks look back, each at the frame before.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..files.checkpoint import Source
from .layers import Causal, FrameConv, Memory, Shapes, run, spoiled
from .wan_vae import VideoVAE, fill, find_weights


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemoryBlock(Causal):
    """A residual block over a frame and what the block was given of the frame before."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        convs = (FrameConv(2 * inputs, outputs), FrameConv(outputs, outputs), FrameConv(outputs, outputs))
        self.conv = nn.ModuleList([convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2]])
        self.skip = FrameConv(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        before = memory.prepend(self, x, 1)[:, :, :-1]
        return F.relu(run(self.conv, torch.cat([x, before], dim=1), memory) + self.skip(x))

    def spoiled(self, frames: int) -> int:
        return frames + 1


class Grow(Causal):
    """Twice the height and width, and ``factor`` frames of each."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = FrameConv(channels, channels * factor, 1, bias=False)
        self.factor = factor

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        # the weights' layout enlarges first: the same, as the convolution sees single pixels, at four times the work
        frames = rearrange(self.conv(x), "b (s c) t h w -> b (t s) h w c", s=self.factor).movedim(-1, 1)
        return F.interpolate(frames, scale_factor=(1.0, 2.0, 2.0))

    def spoiled(self, frames: int) -> int:
        return frames * self.factor


class Pool(nn.Module):
    """``factor`` frames to one."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = FrameConv(channels * factor, channels, 1, bias=False)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(rearrange(x, "b c (t s) h w -> b t h w (s c)", s=self.factor).movedim(-1, 1))


def _layers(shapes: Shapes, part: str) -> nn.ModuleList:
    """The layers named ``<part>.0``, ``<part>.1``, ..., each told by the weights it has, or by having none."""
    layers = nn.ModuleList()
    matches = (re.match(rf"{part}\.(\d{{1,3}})\.", name) for name in shapes)
    for index in range(1 + max((int(match[1]) for match in matches if match), default=-1)):
        name = f"{part}.{index}"
        if shape := shapes.get(f"{name}.conv.0.weight"):
            layers.append(MemoryBlock(shape[1] // 2, shape[0]))
        elif shape := shapes.get(f"{name}.conv.weight"):
            layers.append(
                Grow(shape[1], shape[0] // shape[1]) if part == "decoder" else Pool(shape[0], shape[1] // shape[0])
            )
        elif shape := shapes.get(f"{name}.weight"):
            behind = layers[-1] if index else None
            stride, bias = (2 if isinstance(behind, Pool) else 1), not isinstance(behind, (Grow, Pool))
            layers.append(FrameConv(shape[1], shape[0], shape[2], stride, bias=bias))
        elif index == 0:
            layers.append(Clamp())
        else:  # behind memory blocks the place of the enlarging, which `Grow` does
            layers.append(nn.Identity() if isinstance(layers[-1], MemoryBlock) else nn.ReLU())
    return layers


class TAEHV(VideoVAE):
    """The tiny autoencoder, of any widths; parameters have their original names. Build it with `load_taehv`.

    ``encoder`` is empty if the file has none.
    """

    def __init__(self, shapes: Shapes) -> None:
        """shapes: of the weights, by name; they are the architecture."""
        super().__init__()
        self.encoder = _layers(shapes, "encoder")
        self.decoder = _layers(shapes, "decoder")
        grows = [layer for layer in self.decoder if isinstance(layer, Grow)]
        self.channels = shapes["decoder.1.weight"][1]
        self.spatial_factor = 2 ** len(grows)
        self.temporal_factor = spoiled(grows, 1)
        self.history = -(-spoiled(self.decoder) // self.temporal_factor)

    def decode_next(self, latents: Tensor, memory: Memory) -> Tensor:
        frames = run(self.decoder, self.at_weights(latents), memory).movedim(1, -1)
        if memory.begins:  # the network makes as many frames of the first latent as of the others, for none before it
            frames = frames[:, self.temporal_factor - 1 :]
        memory.begins = False
        return frames.float().clamp(0, 1)

    def encode(self, frames: Tensor) -> Tensor:
        if not len(self.encoder):
            raise ValueError("this TAEHV file holds only the decoder; encode with the Wan VAE, or give the whole file")
        self.check_frames(frames)
        # As its author does: the encoder sees the video ahead of the latent that it makes; at its end nothing moves.
        frames = torch.cat([frames, frames[:, -1:].expand(-1, self.temporal_factor - 1, -1, -1, -1)], dim=1)
        step = self.temporal_factor * self.latents_at_once(*frames.shape[2:4])
        memory = self.memory_type()
        parts = [run(self.encoder, self.at_weights(part.movedim(-1, 1)), memory) for part in frames.split(step, dim=1)]
        return torch.cat(parts, dim=2).float()


def load_taehv(source: Source, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> TAEHV:
    """A TAEHV from a .safetensors, .pt or .pth file or a state dict, in its original names.

    Its widths and factors are read off the shapes. Raises ValueError saying what was found instead of one.
    """
    state = find_weights(source, "decoder.1.weight")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if len(shapes.get("decoder.1.weight", ())) != 4 or len(shapes.get("decoder.3.conv.0.weight", ())) != 4:
        sample = ", ".join(sorted(shapes)[:3]) or "nothing"
        raise ValueError(
            f"this is not a TAEHV: it has no decoder.1.weight and decoder.3.conv.0.weight (it has {sample} ...)"
        )
    try:
        with torch.device("meta"):
            taehv = TAEHV(shapes)
    except (ArithmeticError, IndexError, RuntimeError) as error:
        raise ValueError(f"no TAEHV has weights of such shapes ({error})") from error
    last = taehv.decoder[-1]
    if not isinstance(last, FrameConv) or last.weight.shape[0] != 3:
        raise ValueError("this TAEHV does not end in 3 colours: it is one of another model; Wan 2.1's is taew2_1")
    fill(taehv, state, device, dtype, "a whole TAEHV")
    return taehv
