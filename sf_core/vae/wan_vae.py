"""The Wan 2.1 video autoencoder, whole and as a stream: `load_vae`, `WanVAE`.

`VideoVAE` is what the autoencoders here have in common; `ChunkDecoder` decodes with one, a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..files.checkpoint import Source, open_source
from ..files.safetensors_file import Value, read_value
from .layers import CausalConv, Downsample, Memory, RMSNorm, Shapes, SiLU, Upsample, blocks, run, spoiled

# Of Wan 2.1's latents, per channel; a file with tensors `mean` and `std` says otherwise.
WAN_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
WAN_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)

# Pixels that pass through a network together: enough to keep a GPU busy, few enough for its memory.
_PIXELS_AT_ONCE = 2**17


class VideoVAE(nn.Module):
    """A video autoencoder that goes through time in passes of a few latents, so that its memory does not grow.

    Latents are [B, C, F, H, W], normalised as the transformer makes them; frames [B, T, H, W, 3] in 0..1, float32,
    with ``T = 1 + temporal_factor * (F - 1)``. Computed in the dtype and on the device of the weights.
    """

    channels: int  # of latents
    spatial_factor: int  # pixels along an edge for one of latents
    temporal_factor: int  # frames of a latent; of the first in a video: one
    history: int  # how many latents before its own a frame depends on
    memory_type: type[Memory] = Memory  # a host's own may look, at every layer, whether it is to go on

    def decode(self, latents: Tensor) -> Tensor:
        """The frames of a video from its first latent on. Raises ValueError for latents of another model."""
        self.check_latents(latents)
        memory = self.memory_type()
        return torch.cat([self.decode_next(part, memory) for part in self.latent_passes(latents)], dim=1)

    def encode(self, frames: Tensor) -> Tensor:
        """The latents of a video from its first frame on, float32.

        Raises ValueError for a height, width or count that does not fit, naming the nearest that do.
        """
        raise NotImplementedError

    def stream_decoder(self) -> ChunkDecoder:
        """A decoder that takes a video chunk by chunk."""
        return ChunkDecoder(self)

    def decode_next(self, latents: Tensor, memory: Memory) -> Tensor:
        """The frames of the latents that follow those which ``memory`` has seen; moves it on."""
        raise NotImplementedError

    def at_weights(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T, H, W] as the layers want it: on their device, in their dtype, channels last."""
        weight = next(self.parameters())
        return x.to(weight.device, weight.dtype, memory_format=torch.channels_last_3d)

    def latent_passes(self, latents: Tensor) -> Iterator[Tensor]:
        """``latents`` in as many at a time as should be decoded together."""
        height, width = (size * self.spatial_factor for size in latents.shape[3:])
        yield from latents.split(self.latents_at_once(height, width), dim=2)

    def latents_at_once(self, height: int, width: int) -> int:
        """How many latents to pass at a time for frames of this size."""
        return max(1, _PIXELS_AT_ONCE // (height * width * self.temporal_factor))

    def check_latents(self, latents: Tensor) -> None:
        """Raises ValueError unless these are latents that this decoder is for."""
        shape = list(latents.shape)
        if latents.ndim != 5 or 0 in shape:
            raise ValueError(
                f"latents have the shape {shape}; expected [batch, {self.channels}, frames, height, width]"
            )
        if shape[1] != self.channels:
            raise ValueError(
                f"the latents have {shape[1]} channels, but this VAE is for {self.channels}: it is a VAE of another "
                "model. Load the VAE that belongs to the model that made the latents"
            )

    def check_frames(self, frames: Tensor) -> None:
        """Raises ValueError unless these are frames that can be encoded, naming the nearest sizes that can."""
        shape, factor = list(frames.shape), self.temporal_factor
        if frames.ndim != 5 or shape[-1] != 3 or 0 in shape or not frames.is_floating_point():
            raise ValueError(
                f"frames are {frames.dtype} of the shape {shape}; expected floating point in 0..1, "
                "[batch, frames, height, width, 3]"
            )
        for name, size in (("high", shape[2]), ("wide", shape[3])):
            if size % self.spatial_factor:
                fits = _nearest(size, self.spatial_factor, self.spatial_factor)
                raise ValueError(
                    f"frames are {size} pixels {name}, no multiple of {self.spatial_factor}; the nearest: {fits}"
                )
        if (shape[1] - 1) % factor:
            raise ValueError(
                f"{shape[1]} frames cannot be encoded: a first frame and groups of {factor} after it can; "
                f"the nearest counts: {_nearest(shape[1], 1, factor)}"
            )


def _nearest(size: int, first: int, step: int) -> str:
    """The values of first, first + step, ... next to ``size``, which is none of them."""
    below = size - (size - first) % step
    return " or ".join(str(fit) for fit in (below, below + step) if fit >= first)


class ChunkDecoder:
    """Decodes a video chunk by chunk into the frames that decoding it whole would give.

    A call that fails changes nothing: the decoder stands where it stood.

    ``at``: index of the latent that it expects next. ``history``: how many latents it has to see again to start
    anywhere in a video, because a frame depends on as many before its own.
    """

    def __init__(self, vae: VideoVAE) -> None:
        self.vae = vae
        self.history = vae.history
        self.temporal_factor = vae.temporal_factor
        self.reset()

    def reset(self) -> None:
        """Stand at the beginning of a video, and free what is remembered of another."""
        self.at = 0
        self._size: tuple[int, ...] = ()  # batch, height and width of the latents so far
        self._memory = self.vae.memory_type()

    @property
    def cache_bytes(self) -> int:
        """Memory held between calls."""
        return self._memory.bytes

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        """The frames of ``latents`` [B, C, F, H, W], the first of which is number ``at`` of its video.

        history: the latents directly before them, oldest first; only looked at if the decoder does not stand at
        ``at``. It then needs the last ``decoder.history``, or all if there are fewer.
        Raises ValueError if they are too few, and for latents of another model.
        """
        self.vae.check_latents(latents)
        with torch.no_grad():
            memory = self._memory_before(at, latents, history)
            parts = [self.vae.decode_next(part, memory) for part in self.vae.latent_passes(latents)]
            frames = torch.cat(parts, dim=1)
        self.at, self._size, self._memory = at + latents.shape[2], _size(latents), memory
        return frames

    def _memory_before(self, at: int, latents: Tensor, history: Tensor | None) -> Memory:
        """What decoding all latents of the video before ``at`` leaves behind."""
        if at < 0:
            raise ValueError(f"at is {at}; the first latent of a video is number 0")
        if at == self.at and _size(latents) == self._size:
            return self._memory.copy()
        needed = min(at, self.history)
        memory = self.vae.memory_type(begins=at == needed)
        if needed:
            before = self._checked_history(at, needed, latents, history)
            for part in self.vae.latent_passes(before[:, :, -needed:]):
                self.vae.decode_next(part, memory)
        return memory

    def _checked_history(self, at: int, needed: int, latents: Tensor, history: Tensor | None) -> Tensor:
        given = 0 if history is None else history.shape[2] if history.ndim == 5 else 1
        if history is not None and history.shape != (*latents.shape[:2], given, *latents.shape[3:]):
            raise ValueError(
                f"history has the shape {list(history.shape)}, which does not go with latents of {list(latents.shape)}"
            )
        if history is None or given < needed:
            stands = f"stands at latent {self.at}" if at != self.at else "was decoding latents of another size"
            raise ValueError(
                f"the decoder {stands}: to start at latent {at} it needs the {needed} latents before it as history=; "
                f"{given} were given"
            )
        return history


def _size(latents: Tensor) -> tuple[int, ...]:
    return (latents.shape[0], *latents.shape[3:])


class _Encoder(nn.Module):
    """Pixels [B, 3, T, H, W] in -1..1 to the means and log-variances of latents."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.conv1 = _conv(shapes, "encoder.conv1")
        self.downsamples = blocks(shapes, "encoder.downsamples", Downsample)
        self.middle = blocks(shapes, "encoder.middle", Downsample)
        self.head = _head(shapes, "encoder.head")

    def layers(self) -> list[nn.Module]:
        return [self.conv1, *self.downsamples, *self.middle, *self.head]


class _Decoder(nn.Module):
    """Latents to pixels [B, 3, T, H, W], about -1..1."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.conv1 = _conv(shapes, "decoder.conv1")
        self.middle = blocks(shapes, "decoder.middle", Upsample)
        self.upsamples = blocks(shapes, "decoder.upsamples", Upsample)
        self.head = _head(shapes, "decoder.head")

    def layers(self) -> list[nn.Module]:
        return [self.conv1, *self.middle, *self.upsamples, *self.head]


def _conv(shapes: Shapes, name: str) -> CausalConv:
    outputs, inputs, frames, kernel, _ = shapes[f"{name}.weight"]
    return CausalConv(inputs, outputs, frames, kernel)


def _head(shapes: Shapes, name: str) -> nn.ModuleList:
    conv = _conv(shapes, f"{name}.2")
    return nn.ModuleList([RMSNorm(conv.weight.shape[1]), SiLU(), conv])


class WanVAE(VideoVAE):
    """The VAE of Wan 2.1, of any width and depth; parameters have their original names. Build it with `load_vae`."""

    mean: Tensor
    std: Tensor

    def __init__(self, shapes: Shapes) -> None:
        """shapes: of the weights, by name; they are the architecture."""
        super().__init__()
        self.encoder = _Encoder(shapes)
        self.conv1 = _conv(shapes, "conv1")
        self.conv2 = _conv(shapes, "conv2")
        self.decoder = _Decoder(shapes)
        self.channels = self.conv2.weight.shape[0]
        self.register_buffer("mean", torch.empty(self.channels))
        self.register_buffer("std", torch.empty(self.channels))
        resamples = [block for block in self.decoder.upsamples if isinstance(block, Upsample)]
        self.spatial_factor = 2 ** len(resamples)
        self.temporal_factor = 2 ** sum(block.time_conv is not None for block in resamples)
        self.history = -(-spoiled(self.decoder.layers()) // self.temporal_factor)

    def decode_next(self, latents: Tensor, memory: Memory) -> Tensor:
        z = latents.to(self.std.device, torch.float32) * _per_channel(self.std) + _per_channel(self.mean)
        pixels = run([self.conv2, *self.decoder.layers()], self.at_weights(z), memory)
        memory.begins = False
        return (pixels.movedim(1, -1).float() / 2 + 0.5).clamp(0, 1)

    def encode(self, frames: Tensor) -> Tensor:
        self.check_frames(frames)
        step = self.temporal_factor * self.latents_at_once(*frames.shape[2:4])
        ends = tuple(range(1 + step - self.temporal_factor, frames.shape[1], step))
        memory = self.memory_type()
        return torch.cat([self._encode_next(part, memory) for part in frames.tensor_split(ends, dim=1)], dim=2)

    def _encode_next(self, frames: Tensor, memory: Memory) -> Tensor:
        pixels = self.at_weights((frames.to(self.std.device, torch.float32) * 2 - 1).movedim(-1, 1))
        moments = run([*self.encoder.layers(), self.conv1], pixels, memory)
        memory.begins = False
        mean = moments[:, : self.channels].float()
        return (mean - _per_channel(self.mean)) / _per_channel(self.std)


def _per_channel(values: Tensor) -> Tensor:
    return values.float()[:, None, None, None]


# Loading ------------------------------------------------------------------------------------------------------------


def load_vae(source: Source, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> WanVAE:
    """A Wan 2.1 VAE from a .safetensors, .pt or .pth file or a state dict, in Wan's original names.

    Its size is read off the shapes. Tensors ``mean`` and ``std``, if there, are its latents' normalisation in place of
    Wan's. Raises ValueError saying what was found instead of such a VAE.
    """
    state = find_weights(source, "decoder.conv1.weight")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    _check_is_wan(shapes)
    try:
        with torch.device("meta"):
            vae = WanVAE(shapes)
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"no Wan VAE has weights of such shapes ({error})") from error
    if "mean" not in state and "std" not in state:
        if vae.channels != len(WAN_MEAN):
            raise ValueError(
                f"this VAE has {vae.channels} latent channels, Wan 2.1's {len(WAN_MEAN)}; for another the weights must "
                "hold its normalisation, as tensors mean and std"
            )
        state |= {"mean": torch.tensor(WAN_MEAN), "std": torch.tensor(WAN_STD)}
    fill(vae, state, device, dtype, "a whole Wan 2.1 VAE")
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
            found = f"it has {sample} ..." if shape is None else f"it has the shape {list(shape)}"
            raise ValueError(f"this is not a Wan 2.1 VAE: it has no 3-D convolution {name}.weight ({found})")


def find_weights(source: Source, telling: str) -> dict[str, Value]:
    """The weights of a file or state dict; those under a prefix such as ``vae.`` if the weight ``telling`` has it."""
    tensors, _ = open_source(source)
    prefix = min((name.removesuffix(telling) for name in tensors if name.endswith(telling)), key=len, default="")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def fill(
    module: nn.Module, state: Mapping[str, Value], device: str | torch.device, dtype: torch.dtype, what: str
) -> None:
    """Give ``module`` the weights of ``state``, in ``dtype`` on ``device``, and its buffers, in float32.

    Raises ValueError (this is not ``what``) if names or shapes differ.
    """
    expected = module.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        parts = [f"lacks {len(missing)} tensors ({', '.join(missing[:3])} ...)"] if missing else []
        parts += [f"has {len(extra)} too many ({', '.join(extra[:3])} ...)"] if extra else []
        raise ValueError(f"this is not {what}: it {' and '.join(parts)}")
    buffers = dict(module.named_buffers())
    placed = {}
    for name, value in expected.items():
        if tuple(state[name].shape) != tuple(value.shape):
            raise ValueError(f"{name} has the shape {list(state[name].shape)}; expected {list(value.shape)}")
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(value.ndim, torch.preserve_format)
        wanted = torch.float32 if name in buffers else dtype
        placed[name] = read_value(state[name]).detach().to(device, wanted, copy=True, memory_format=layout)
    module.load_state_dict(placed, assign=True)
    module.eval().requires_grad_(False)
