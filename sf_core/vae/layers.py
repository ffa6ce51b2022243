"""Layers of the video autoencoders, and the state that they carry along a stream.

Features are [B, C, T, H, W] in channels-last memory: the channels of a pixel are adjacent, as convolutions and norms
prefer it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Sizes = int | tuple[int, ...]  # one for all directions, or one for each


def _wants_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _must_be_exact(x: Tensor) -> bool:
    """Return whether results must be the same bits however a video is cut: on the CPU in float32."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes = 1, padding: Sizes = 0) -> Tensor:
    """Convolve [B, C, H, W] or [B, C, T, H, W].

    On the CPU this calls oneDNN by name. At batch 1 PyTorch would choose a kernel that is many times slower in 3-D, and
    its choice would depend on the number of frames. This call of oneDNN has no gradient, so training takes PyTorch's
    own.
    """
    directions = weight.ndim - 2
    if torch.backends.mkldnn.is_available() and _must_be_exact(x) and not _wants_gradient(x, weight, bias):
        strides, paddings = ([n] * directions if isinstance(n, int) else list(n) for n in (stride, padding))
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, paddings, strides, [1] * directions, 1)
    return (F.conv3d if directions == 3 else F.conv2d)(x, weight, bias, stride, padding)


class StreamState:
    """State of one stream between calls: for each layer, its last input frames.

    Args:
        at_start: The next frame is the first of its video, which temporal up- and downsampling treat separately. An
            empty state without it starts in mid-video: its output is right after the warm-up frames of the layers.
        sparing: Take little memory of the device and more time: few frames at a time pass through `run_sparing`, and
            those held between calls are in RAM.
    """

    def __init__(self, at_start: bool = True, sparing: bool = False) -> None:
        self.at_start, self.sparing = at_start, sparing
        self._past: dict[nn.Module, Tensor] = {}

    def prepend(self, layer: nn.Module, x: Tensor, frames: int) -> Tensor:
        """Put the last ``frames`` input frames of ``layer`` before ``x``, and remember the newest.

        Frames are dimension 2. Zeros stand for frames before the first.
        """
        if frames == 0:
            return x
        past = self._past.get(layer)
        # the weights may have moved to another device since the last call
        joined = F.pad(x, (0, 0, 0, 0, frames, 0)) if past is None else torch.cat([past.to(x), x], dim=2)
        newest = joined[:, :, -frames:]  # a view would keep the whole of x
        self._past[layer] = in_ram(newest) if self.sparing else newest.clone()
        return joined

    def spare(self) -> None:
        """Be sparing from now on."""
        self.sparing = True
        for layer, past in self._past.items():
            self._past[layer] = in_ram(past)

    def copy(self) -> StreamState:
        """Return an independent state with the same past."""
        twin = type(self)(self.at_start, self.sparing)
        twin._past = dict(self._past)
        return twin

    @property
    def bytes(self) -> int:
        """Memory of the device that the frames held take, in bytes."""
        return 0 if self.sparing else sum(past.numel() * past.element_size() for past in self._past.values())


def in_ram(tensor: Tensor) -> Tensor:
    """Return a copy in RAM."""
    return tensor.to("cpu", copy=True)


class StatefulLayer(nn.Module):
    """A layer that depends on earlier frames or changes the frame rate: its forward takes (x, state).

    Attributes:
        time_stride: Number of frames that become one.
    """

    time_stride = 1

    def warmup_frames(self, frames: int) -> int:
        """Count the warm-up frames of the output after a cold start (temporal receptive field).

        Args:
            frames: Warm-up frames of the input.
        """
        raise NotImplementedError


def run(layers: Iterable[nn.Module], x: Tensor, state: StreamState) -> Tensor:
    """Pass ``x`` through ``layers`` in sequence."""
    for layer in layers:
        x = layer(x, state) if isinstance(layer, StatefulLayer) else layer(x)
    return x


def run_sparing(layers: Sequence[nn.Module], x: Tensor, state: StreamState) -> Tensor:
    """Pass ``x`` through causal ``layers``: as few frames at a time as there can be, if ``state`` is sparing.

    Wherever there are more, each passes through all layers that are left, or those up to the next temporal
    downsampling, before the next; ``state`` joins them as it joins the chunks of a stream. Layers that downsample in
    time must not be given the first frame of a video together with others.
    """
    number = 0
    while number < len(layers):
        together, after = _time_stride(layers[number]), number + 1
        if state.sparing and x.shape[2] > together:
            while after < len(layers) and _time_stride(layers[after]) == 1:
                after += 1
            parts = []
            for part in x.split(together, dim=2):
                parts.append(run_sparing(layers[number:after], part, state))
                state.at_start = False  # these layers have seen the first frame
            x = torch.cat(parts, dim=2)
        else:
            x = run(layers[number:after], x, state)
        number = after
    return x


def _time_stride(layer: nn.Module) -> int:
    """Return the number of frames that ``layer`` makes one of."""
    return int(getattr(layer, "time_stride", 1))


def warmup_frames(layers: Iterable[nn.Module], frames: int = 0) -> int:
    """Count the warm-up frames of ``layers`` in sequence, see `StatefulLayer.warmup_frames`."""
    for layer in layers:
        frames = layer.warmup_frames(frames) if isinstance(layer, StatefulLayer) else frames
    return frames


class RMSNorm(nn.Module):
    """Normalisation of every pixel's channels to root mean square 1, times gamma [C, 1, ...]."""

    def __init__(self, channels: int, directions: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, *[1] * directions))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, T, H, W]."""
        gamma = self.gamma.flatten().to(x.dtype)  # autocast leaves it wide, and torch has no fused kernel for that
        pixels = F.rms_norm(x.movedim(1, -1), (x.shape[1],), gamma, eps=1e-24)
        return pixels.movedim(-1, 1)


class SiLU(nn.Module):
    """``x * sigmoid(x)``, in place where no gradient is needed."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        if _wants_gradient(x):
            return F.silu(x)
        if _must_be_exact(x):
            # PyTorch's own uses another exponential for the values behind the last whole vector of a thread
            return x.div_(x.neg().exp_().add_(1))
        return F.silu(x, inplace=True)


class FrameConv(nn.Module):
    """A 2-D convolution of each frame; by default zero-padded to keep its size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padded: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.stride = stride
        self.padding = kernel // 2 if padded else 0

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, T, H, W]."""
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        y = convolve(frames, self.weight, self.bias, self.stride, self.padding)
        return rearrange(y, "(b t) c h w -> b c t h w", b=x.shape[0])


class CausalConv(StatefulLayer):
    """A 3-D convolution that sees the present frame and those before it."""

    def __init__(self, inputs: int, outputs: int, frames: int = 3, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, frames, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.past = frames - 1
        self.padding = (0, kernel // 2, kernel // 2)

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """Convolve [B, C, T, H, W] and the frames before it."""
        return convolve(state.prepend(self, x, self.past), self.weight, self.bias, padding=self.padding)

    def warmup_frames(self, frames: int) -> int:
        """Count the warm-up frames of the output."""
        return frames + self.past


class ResidualBlock(StatefulLayer):
    """Two causal convolutions, each after norm and activation, and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first = [RMSNorm(inputs), SiLU(), CausalConv(inputs, outputs)]
        # the identity takes the place of a dropout in the weights' numbering
        second = [RMSNorm(outputs), SiLU(), nn.Identity(), CausalConv(outputs, outputs)]
        self.residual = nn.ModuleList([*first, *second])
        self.shortcut = CausalConv(inputs, outputs, 1, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """Apply the block to [B, C, T, H, W]."""
        return run(self.residual, x, state) + run([self.shortcut], x, state)

    def warmup_frames(self, frames: int) -> int:
        """Count the warm-up frames of the output."""
        return warmup_frames(self.residual, frames)


class AttentionBlock(nn.Module):
    """Self-attention with one head among the pixels of a frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels, directions=2)
        self.to_qkv = FrameConv(channels, 3 * channels, 1)
        self.proj = FrameConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to [B, C, T, H, W]."""
        tokens = rearrange(self.to_qkv(self.norm(x)), "b c t h w -> (b t) 1 (h w) c")
        mixed = F.scaled_dot_product_attention(*tokens.chunk(3, dim=-1))
        return x + self.proj(rearrange(mixed, "(b t) 1 (h w) c -> b c t h w", t=x.shape[2], h=x.shape[3]))


class UpsampleNearest2x(nn.Module):
    """Nearest-neighbour upsampling of height and width by 2.

    It runs in 2-D: on a GPU that kernel keeps channels-last memory, the 3-D kernel does not.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Upsample [B, C, T, H, W]."""
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        return rearrange(F.interpolate(frames, scale_factor=2.0), "(b t) c h w -> b c t h w", b=x.shape[0])


class Upsample(StatefulLayer):
    """Twice the height and width; where ``temporal``, also two frames for each but the first of the video."""

    def __init__(self, inputs: int, outputs: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleList([UpsampleNearest2x(), FrameConv(inputs, outputs)])
        self.time_conv = CausalConv(inputs, 2 * inputs, kernel=1) if temporal else None

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """Upsample [B, C, T, H, W]."""
        if self.time_conv is not None:
            # the first frame of a video is not doubled, and the second does not see it
            first, rest = _first_and_rest(x) if state.at_start else ([], x)
            if rest.shape[2]:
                doubled = rearrange(self.time_conv(rest, state), "b (two c) t h w -> b (t two) h w c", two=2)
                x = torch.cat([*first, doubled.movedim(-1, 1)], dim=2)
        return run(self.resample, x, state)

    def warmup_frames(self, frames: int) -> int:
        """Count the warm-up frames of the output."""
        return frames if self.time_conv is None else 2 * self.time_conv.warmup_frames(frames)


class Downsample(StatefulLayer):
    """Half the height and width; where ``temporal``, also one frame of two after the first of the video."""

    def __init__(self, inputs: int, outputs: int, temporal: bool) -> None:
        super().__init__()
        conv = FrameConv(inputs, outputs, stride=2, padded=False)
        self.resample = nn.ModuleList([nn.ZeroPad3d((0, 1, 0, 1, 0, 0)), conv])
        self.time_conv = CausalConv(outputs, outputs, kernel=1) if temporal else None
        self.time_stride = 1 + temporal

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """Downsample [B, C, T, H, W]."""
        x = run(self.resample, x, state)
        if self.time_conv is None:
            return x
        joined = state.prepend(self, x, 1)
        first, seen = (_first_and_rest(x)[0], x) if state.at_start else ([], joined)
        if seen.shape[2] == 1:
            return x
        return torch.cat([*first, convolve(seen, self.time_conv.weight, self.time_conv.bias, stride=(2, 1, 1))], dim=2)


def _first_and_rest(x: Tensor) -> tuple[list[Tensor], Tensor]:
    return [x[:, :, :1]], x[:, :, 1:]
