"""What the video decoders are made of: layers that look back in time, and the memory of one stream.

Features are [B, C, T, H, W], kept channels-last: a pixel's channels lie together, which convolutions and norms like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]  # of weights, by name
Sizes = int | tuple[int, ...]  # one for all directions, or one for each


def _wants_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _is_plain(x: Tensor) -> bool:
    """Whether results are to be the same bits however a video is cut: on the CPU in float32."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes = 1, padding: Sizes = 0) -> Tensor:
    """A convolution of [B, C, H, W] or [B, C, T, H, W].

    On the CPU it asks for oneDNN by name: at batch 1 PyTorch would choose a kernel that is many times slower in 3-D,
    and one kernel or another by the number of frames. Asked so, oneDNN has no gradient.
    """
    directions = weight.ndim - 2
    if torch.backends.mkldnn.is_available() and _is_plain(x) and not _wants_gradient(x, weight, bias):
        strides, paddings = ([n] * directions if isinstance(n, int) else list(n) for n in (stride, padding))
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, paddings, strides, [1] * directions, 1)
    return (F.conv3d if directions == 3 else F.conv2d)(x, weight, bias, stride, padding)


class Memory:
    """What the layers of one stream keep between calls: of each, the last frames that it was given.

    ``begins``: the next frame is the first of its video, which temporal up- and downsampling treat apart. A memory
    that is empty without it starts in mid-video: wrong at first, right once as many frames have passed as layers see.
    """

    def __init__(self, begins: bool = True) -> None:
        self.begins = begins
        self._past: dict[nn.Module, Tensor] = {}

    def prepend(self, layer: nn.Module, x: Tensor, frames: int) -> Tensor:
        """``x`` behind the last ``frames`` frames that ``layer`` was given, zeros before the first; keeps the newest.

        Frames lie along dimension 2.
        """
        if frames == 0:
            return x
        past = self._past.get(layer)
        # the weights may have moved to another device since the last call
        joined = F.pad(x, (0, 0, 0, 0, frames, 0)) if past is None else torch.cat([past.to(x), x], dim=2)
        self._past[layer] = joined[:, :, -frames:].clone()  # a view would keep the whole of x
        return joined

    def copy(self) -> Memory:
        """Another memory of the same past."""
        twin = type(self)(self.begins)
        twin._past = dict(self._past)
        return twin

    @property
    def bytes(self) -> int:
        return sum(past.numel() * past.element_size() for past in self._past.values())


class Causal(nn.Module):
    """A layer that looks back or changes the frame rate: its forward takes (x, memory)."""

    def spoiled(self, frames: int) -> int:
        """How many leading frames of its output a start in mid-video spoils, if it spoils ``frames`` of its input."""
        raise NotImplementedError


def run(layers: Iterable[nn.Module], x: Tensor, memory: Memory) -> Tensor:
    """``x`` through ``layers``, one after the other."""
    for layer in layers:
        x = layer(x, memory) if isinstance(layer, Causal) else layer(x)
    return x


def spoiled(layers: Iterable[nn.Module], frames: int = 0) -> int:
    """`Causal.spoiled` of ``layers`` one after the other."""
    for layer in layers:
        frames = layer.spoiled(frames) if isinstance(layer, Causal) else frames
    return frames


class RMSNorm(nn.Module):
    """Every pixel's channels brought to root mean square 1, times gamma [C, 1, ...]."""

    def __init__(self, channels: int, directions: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, *[1] * directions))

    def forward(self, x: Tensor) -> Tensor:
        pixels = F.rms_norm(x.movedim(1, -1), (x.shape[1],), self.gamma.flatten(), eps=1e-24)
        return pixels.movedim(-1, 1)


class SiLU(nn.Module):
    """``x * sigmoid(x)``, written over ``x`` where no gradient is wanted."""

    def forward(self, x: Tensor) -> Tensor:
        if _wants_gradient(x):
            return F.silu(x)
        if _is_plain(x):
            # PyTorch's own takes another exponential for what is left over behind the last whole vector of a thread
            return x.div_(x.neg().exp_().add_(1))
        return F.silu(x, inplace=True)


class FrameConv(nn.Module):
    """A convolution over each frame by itself; by default zero-padded to keep its size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padded: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.stride = stride
        self.padding = kernel // 2 if padded else 0

    def forward(self, x: Tensor) -> Tensor:
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        y = convolve(frames, self.weight, self.bias, self.stride, self.padding)
        return rearrange(y, "(b t) c h w -> b c t h w", b=x.shape[0])


class CausalConv(Causal):
    """A convolution over space and time that sees the present frame and those before it."""

    def __init__(self, inputs: int, outputs: int, frames: int = 3, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, frames, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.past = frames - 1
        self.padding = (0, kernel // 2, kernel // 2)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        return convolve(memory.prepend(self, x, self.past), self.weight, self.bias, padding=self.padding)

    def spoiled(self, frames: int) -> int:
        return frames + self.past


class ResidualBlock(Causal):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first = [RMSNorm(inputs), SiLU(), CausalConv(inputs, outputs)]
        # the identity holds the place of a dropout in the weights' numbering
        second = [RMSNorm(outputs), SiLU(), nn.Identity(), CausalConv(outputs, outputs)]
        self.residual = nn.ModuleList([*first, *second])
        self.shortcut = CausalConv(inputs, outputs, 1, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        return run(self.residual, x, memory) + run([self.shortcut], x, memory)

    def spoiled(self, frames: int) -> int:
        return spoiled(self.residual, frames)


class AttentionBlock(nn.Module):
    """Self-attention with one head among the pixels of a frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels, directions=2)
        self.to_qkv = FrameConv(channels, 3 * channels, 1)
        self.proj = FrameConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(self.to_qkv(self.norm(x)), "b c t h w -> (b t) 1 (h w) c")
        mixed = F.scaled_dot_product_attention(*tokens.chunk(3, dim=-1))
        return x + self.proj(rearrange(mixed, "(b t) 1 (h w) c -> b c t h w", t=x.shape[2], h=x.shape[3]))


class Twice(nn.Module):
    """Height and width doubled, frame by frame: on a GPU only the kernel for pictures likes channels-last."""

    def forward(self, x: Tensor) -> Tensor:
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        return rearrange(F.interpolate(frames, scale_factor=2.0), "(b t) c h w -> b c t h w", b=x.shape[0])


class Upsample(Causal):
    """Twice the height and width; where ``temporal``, two frames of each but the first of the video."""

    def __init__(self, inputs: int, outputs: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleList([Twice(), FrameConv(inputs, outputs)])
        self.time_conv = CausalConv(inputs, 2 * inputs, kernel=1) if temporal else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        if self.time_conv is not None:
            # the first frame of a video is not doubled, and the second does not see it
            first, rest = _first_and_rest(x) if memory.begins else ([], x)
            if rest.shape[2]:
                doubled = rearrange(self.time_conv(rest, memory), "b (two c) t h w -> b (t two) h w c", two=2)
                x = torch.cat([*first, doubled.movedim(-1, 1)], dim=2)
        return run(self.resample, x, memory)

    def spoiled(self, frames: int) -> int:
        return frames if self.time_conv is None else 2 * self.time_conv.spoiled(frames)


class Downsample(Causal):
    """Half the height and width; where ``temporal``, one frame of two after the first of the video."""

    def __init__(self, inputs: int, outputs: int, temporal: bool) -> None:
        super().__init__()
        conv = FrameConv(inputs, outputs, stride=2, padded=False)
        self.resample = nn.ModuleList([nn.ZeroPad3d((0, 1, 0, 1, 0, 0)), conv])
        self.time_conv = CausalConv(outputs, outputs, kernel=1) if temporal else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        x = run(self.resample, x, memory)
        if self.time_conv is None:
            return x
        joined = memory.prepend(self, x, 1)
        first, seen = (_first_and_rest(x)[0], x) if memory.begins else ([], joined)
        if seen.shape[2] == 1:
            return x
        return torch.cat([*first, convolve(seen, self.time_conv.weight, self.time_conv.bias, stride=(2, 1, 1))], dim=2)


def _first_and_rest(x: Tensor) -> tuple[list[Tensor], Tensor]:
    return [x[:, :, :1]], x[:, :, 1:]


def blocks(shapes: Shapes, prefix: str, resample: type[Upsample | Downsample]) -> nn.ModuleList:
    """The blocks named ``<prefix>.0``, ``<prefix>.1``, ..., each told by the weights it has among ``shapes``."""
    found = nn.ModuleList()
    while True:
        name = f"{prefix}.{len(found)}"
        if shape := shapes.get(f"{name}.residual.2.weight"):
            found.append(ResidualBlock(shape[1], shape[0]))
        elif shape := shapes.get(f"{name}.to_qkv.weight"):
            found.append(AttentionBlock(shape[1]))
        elif shape := shapes.get(f"{name}.resample.1.weight"):
            found.append(resample(shape[1], shape[0], f"{name}.time_conv.weight" in shapes))
        else:
            return found
