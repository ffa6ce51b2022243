"""TAEHV, the tiny video autoencoder (madebyollin's ``taew2_1`` for Wan 2.1): `load_taehv`.

It processes frames one by one; only its memory blocks look back, each at the frame before.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..files.checkpoint import Source
from ..files.pixels import to_floats
from .layers import FrameConv, StatefulLayer, StreamState, run, run_sparing, warmup_frames
from .video_vae import Shapes, VideoVAE, load_into, vae_weights


class Clamp(nn.Module):
    """Soft limit of the latents to -3..3."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the limit."""
        return torch.tanh(x / 3) * 3


class MemoryBlock(StatefulLayer):
    """A residual block over a frame and the block's input for the frame before."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        convs = (FrameConv(2 * inputs, outputs), FrameConv(outputs, outputs), FrameConv(outputs, outputs))
        self.conv = nn.ModuleList([convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2]])
        self.skip = FrameConv(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """Apply the block to [B, C, T, H, W]."""
        before = state.prepend(self, x, 1)[:, :, :-1]
        return F.relu(run(self.conv, torch.cat([x, before], dim=1), state) + self.skip(x))

    def warmup_frames(self, frames: int) -> int:
        """Count the warm-up frames of the output."""
        return frames + 1


class TemporalUpsample(StatefulLayer):
    """Twice the height and width, and ``factor`` frames for each."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = FrameConv(channels, channels * factor, 1, bias=False)
        self.factor = factor

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """Upsample [B, C, T, H, W]."""
        # The file's layout upsamples in space first. As the convolution sees single pixels, that gives the same result
        # for four times the work.
        frames = rearrange(self.conv(x), "b (s c) t h w -> b (t s) h w c", s=self.factor).movedim(-1, 1)
        return F.interpolate(frames, scale_factor=(1.0, 2.0, 2.0))

    def warmup_frames(self, frames: int) -> int:
        """Count the warm-up frames of the output."""
        return frames * self.factor


class TemporalPool(nn.Module):
    """One frame for ``factor`` frames."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = FrameConv(channels * factor, channels, 1, bias=False)
        self.factor = self.time_stride = factor

    def forward(self, x: Tensor) -> Tensor:
        """Downsample [B, C, T, H, W] in time."""
        return self.conv(rearrange(x, "b c (t s) h w -> b t h w (s c)", s=self.factor).movedim(-1, 1))


def _layers(shapes: Shapes, part: str) -> nn.ModuleList:
    """Build the layers ``<part>.0``, ``<part>.1``, ..., the kind of each detected from its weights or their absence."""
    layers = nn.ModuleList()
    matches = (re.match(rf"{part}\.(\d{{1,3}})\.", name) for name in shapes)
    for index in range(1 + max((int(match[1]) for match in matches if match), default=-1)):
        name = f"{part}.{index}"
        if shape := shapes.get(f"{name}.conv.0.weight"):
            layers.append(MemoryBlock(shape[1] // 2, shape[0]))
        elif shape := shapes.get(f"{name}.conv.weight"):
            layers.append(
                TemporalUpsample(shape[1], shape[0] // shape[1])
                if part == "decoder"
                else TemporalPool(shape[0], shape[1] // shape[0])
            )
        elif shape := shapes.get(f"{name}.weight"):
            before = layers[-1] if index else None
            stride = 2 if isinstance(before, TemporalPool) else 1
            bias = not isinstance(before, (TemporalUpsample, TemporalPool))
            layers.append(FrameConv(shape[1], shape[0], shape[2], stride, bias=bias))
        elif index == 0:
            layers.append(Clamp())
        else:  # after memory blocks this is the file's upsampling in space, which `TemporalUpsample` includes
            layers.append(nn.Identity() if isinstance(layers[-1], MemoryBlock) else nn.ReLU())
    return layers


class TAEHV(VideoVAE):
    """The tiny autoencoder, of any widths; parameters have their original names. `load_taehv` builds it.

    ``encoder`` is empty if the file has none.

    Args:
        shapes: Shapes of the weights, by name; they determine the architecture.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.encoder = _layers(shapes, "encoder")
        self.decoder = _layers(shapes, "decoder")
        upsamples = [layer for layer in self.decoder if isinstance(layer, TemporalUpsample)]
        self.channels = shapes["decoder.1.weight"][1]
        self.spatial_factor = 2 ** len(upsamples)
        self.temporal_factor = warmup_frames(upsamples, 1)
        self.lookahead = self.temporal_factor - 1  # as its author encodes: a latent is made from all of its group
        self.history = -(-warmup_frames(self.decoder) // self.temporal_factor)

    def decode_next(self, latents: Tensor, state: StreamState) -> Tensor:
        """Decode the latents that follow those which ``state`` has seen, and advance it."""
        at_start = state.at_start
        frames = run_sparing(list(self.decoder), self.at_weights(latents), state).movedim(1, -1)
        if at_start:  # the network makes frames before the video's first out of its first latent
            frames = frames[:, self.temporal_factor - 1 :]
        state.at_start = False
        return frames.float().clamp(0, 1)

    @property
    def has_encoder(self) -> bool:
        """Whether the file has an encoder."""
        return len(self.encoder) > 0

    def encode_next(self, frames: Tensor, state: StreamState) -> Tensor:
        """See `VideoVAE.encode_next`."""
        if not self.has_encoder:
            raise ValueError("this TAEHV file holds only the decoder; encode with the Wan VAE, or give the whole file")
        step = self.temporal_factor * (1 if state.sparing else self.latents_at_once(*frames.shape[2:4]))
        parts = [
            run_sparing(list(self.encoder), self.at_weights(to_floats(part).movedim(-1, 1)), state)
            for part in frames.split(step, dim=1)
        ]
        state.at_start = False
        return torch.cat(parts, dim=2).float()


def load_taehv(source: Source, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> TAEHV:
    """Load a TAEHV in its original names.

    Args:
        source: A .safetensors, .pt or .pth file, or a state dict. Widths and factors are detected from its shapes.
        device: Device of the weights.
        dtype: Of the weights, and of the computation.

    Raises:
        ValueError: The source is no TAEHV; the message says what it is instead.
    """
    weights = vae_weights(source, "decoder.1.weight")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
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
    load_into(taehv, weights, device, dtype, "a whole TAEHV")
    return taehv
