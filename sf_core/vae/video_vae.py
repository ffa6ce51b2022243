"""The base of the video autoencoders: `VideoVAE`, and loading weights into one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..files.checkpoint import Source, open_source
from ..files.safetensors_file import Value, read_value
from ..out_of_memory import is_out_of_memory
from .chunk_decoder import ChunkDecoder
from .chunk_encoder import ChunkEncoder
from .layers import StreamState

log = logging.getLogger("self_forcing")

Shapes = Mapping[str, tuple[int, ...]]  # of weights, by name

# Pixels that pass through a network together: enough to keep a GPU busy, few enough for its memory.
PIXELS_AT_ONCE = 2**17


class VideoVAE(nn.Module):
    """A video autoencoder that processes a few latents at a time, so that its memory does not grow with the video.

    Latents are [B, C, F, H, W], normalised as the transformer makes them. Frames are [B, T, H, W, 3] in 0..1, float32,
    with ``T = 1 + temporal_factor * (F - 1)``. It computes in the dtype and on the device of its weights.
    """

    channels: int  # of latents
    spatial_factor: int  # pixels along an edge for each one of a latent
    temporal_factor: int  # frames of a latent; the first latent of a video has one
    history: int  # number of latents before its own that a frame depends on
    lookahead: int = 0  # number of frames after its own that a latent is encoded from
    state_type: type[StreamState] = StreamState  # a host's own can check for cancellation at every layer

    def decode(self, latents: Tensor) -> Tensor:
        """Decode a video from its first latent on.

        Raises:
            ValueError: The latents are of another model.
        """
        self.check_latents(latents)
        state = self.state_type()
        return torch.cat([self.decode_next(part, state) for part in self.latent_passes(latents)], dim=1)

    def encode(self, frames: Tensor) -> Tensor:
        """Encode a video from its first frame on; latents are float32.

        Raises:
            ValueError: A height, width or number of frames does not fit; the message names the nearest that do.
        """
        self.check_frames(frames)
        return self.encode_parts(frames)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode a video in 8 bits, [B, T, H, W, 3], a part of which at a time becomes floating point.

        Raises:
            ValueError: As for `encode`.
        """
        self.check_frames(pixels.to("meta", torch.float32))
        return self.encode_parts(pixels)

    def encode_parts(self, frames: Tensor) -> Tensor:
        """Encode frames that were checked, in 0..1 or in 8 bits.

        An encoding that runs out of memory is made again sparingly: it makes the same latents with a fraction of the
        memory, and takes longer.
        """
        try:
            return self.encode_with(frames, self.state_type())
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # the error is gone, and what it held is free
        log.warning("the memory is not enough to encode several frames at once: encoding one by one, more slowly")
        return self.encode_with(frames, self.state_type(sparing=True))

    def encode_with(self, frames: Tensor, state: StreamState) -> Tensor:
        """Encode a whole video that was checked, in 0..1 or in 8 bits. Its last frame stands for those after it."""
        after = frames[:, -1:].expand(-1, self.lookahead, -1, -1, -1)
        return self.encode_next(torch.cat([frames, after], dim=1) if self.lookahead else frames, state)

    def encode_next(self, frames: Tensor, state: StreamState) -> Tensor:
        """Encode the frames that follow those which ``state`` has seen, and advance it; latents are float32.

        Args:
            frames: Those of whole latents, `lookahead` included; the first latent of a video has one of its own.
            state: The past of the video.

        Raises:
            ValueError: The file has no encoder.
        """
        raise NotImplementedError

    @property
    def has_encoder(self) -> bool:
        """Whether it can encode."""
        return True

    def stream_encoder(self) -> ChunkEncoder:
        """Return an encoder that takes a video part by part."""
        return ChunkEncoder(self)

    def stream_decoder(self) -> ChunkDecoder:
        """Return a decoder that takes a video chunk by chunk."""
        return ChunkDecoder(self)

    def decode_next(self, latents: Tensor, state: StreamState) -> Tensor:
        """Decode the latents that follow those which ``state`` has seen, and advance it."""
        raise NotImplementedError

    def at_weights(self, x: Tensor) -> Tensor:
        """Convert ``x`` [B, C, T, H, W] for the layers: their device, their dtype, channels-last memory."""
        weight = next(self.parameters())
        return x.to(weight.device, weight.dtype, memory_format=torch.channels_last_3d)

    def latent_passes(self, latents: Tensor) -> Iterator[Tensor]:
        """Split ``latents`` into the parts that are decoded together."""
        height, width = (size * self.spatial_factor for size in latents.shape[3:])
        yield from latents.split(self.latents_at_once(height, width), dim=2)

    def latents_at_once(self, height: int, width: int) -> int:
        """Return how many latents to process together for frames of this size."""
        return max(1, PIXELS_AT_ONCE // (height * width * self.temporal_factor))

    def check_latents(self, latents: Tensor) -> None:
        """Raise ValueError for latents of another model."""
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
        """Raise ValueError for frames that cannot be encoded, naming the nearest sizes that can."""
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
    """Name the values of first, first + step, ... next to ``size``, which is none of them."""
    below = size - (size - first) % step
    return " or ".join(str(fit) for fit in (below, below + step) if fit >= first)


# Loading ------------------------------------------------------------------------------------------------------------


def vae_weights(source: Source, landmark: str) -> dict[str, Value]:
    """Open the weights of a VAE; files are not read yet.

    Args:
        source: A file or a state dict.
        landmark: A weight that every such VAE has. If its name stands under a prefix such as ``vae.``, only the
            weights under that prefix are returned, without it.
    """
    tensors, _ = open_source(source)
    prefix = min((name.removesuffix(landmark) for name in tensors if name.endswith(landmark)), key=len, default="")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def load_into(
    module: nn.Module, weights: Mapping[str, Value], device: str | torch.device, dtype: torch.dtype, kind: str
) -> None:
    """Load ``weights`` into ``module``, freeze it, and set it to evaluation.

    Args:
        module: May be on the meta device.
        weights: For all parameters and buffers, by name.
        device: Device of the loaded tensors.
        dtype: Of the parameters; buffers become float32.
        kind: The expected kind of model, for the error message.

    Raises:
        ValueError: Names or shapes differ.
    """
    expected = module.state_dict()
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or extra:
        parts = [f"lacks {len(missing)} tensors ({', '.join(missing[:3])} ...)"] if missing else []
        parts += [f"has {len(extra)} too many ({', '.join(extra[:3])} ...)"] if extra else []
        raise ValueError(f"this is not {kind}: it {' and '.join(parts)}")
    buffers = dict(module.named_buffers())
    loaded = {}
    for name, value in expected.items():
        if tuple(weights[name].shape) != tuple(value.shape):
            raise ValueError(f"{name} has the shape {list(weights[name].shape)}; expected {list(value.shape)}")
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(value.ndim, torch.preserve_format)
        target = torch.float32 if name in buffers else dtype
        loaded[name] = read_value(weights[name]).detach().to(device, target, copy=True, memory_format=layout)
    module.load_state_dict(loaded, assign=True)
    module.eval().requires_grad_(False)
