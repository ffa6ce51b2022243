"""The work of a chunk: floating-point operations and copied bytes, counted from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from .memory_ledger import Setup
from .model.architecture import WanArchitecture
from .model.cache_shape import CacheShape


@dataclass(frozen=True)
class Work:
    """What one chunk of a video that has filled its window takes.

    Attributes:
        products: Floating-point operations of the linear layers.
        attention: Floating-point operations of self- and cross-attention.
        decoding: Floating-point operations of the decoder.
        copied: Bytes that an offloaded cache copies to the device.
        frames: Frames of the video that the chunk is.
    """

    products: float
    attention: float
    decoding: float
    copied: int
    frames: int

    @property
    def total(self) -> float:
        """All floating-point operations."""
        return self.products + self.attention + self.decoding


def work_of(arch: WanArchitecture, shape: CacheShape, setup: Setup) -> Work:
    """Count the work of a chunk.

    Args:
        arch: Sizes of the transformer.
        shape: Shape of the cache, see `CausalModel.cache_shape`.
        setup: Settings of the run.
    """
    tokens, passes = shape.frame_tokens, passes_of(setup)
    passed = sum(frames for frames, _ in passes) * tokens * setup.batch
    # self-attention has four products of dim x dim, cross-attention two: the prompt's keys and values are kept
    a_token = 2 * arch.num_layers * (6 * arch.dim**2 + 2 * arch.dim * arch.ffn_dim)
    a_token += 2 * arch.dim * (arch.in_dim + arch.out_dim) * arch.patch_size[1] * arch.patch_size[2]
    pairs = sum(frames * tokens * (sees * tokens + arch.text_len) for frames, sees in passes) * setup.batch
    decoder, chunk = setup.decoder, setup.config.chunk_frames
    frames = chunk * (decoder.temporal_factor if decoder else 4)
    decoding = 0.0 if decoder is None else decoder.work(setup) * frames
    copied = len(passes) * shape.host_bytes(setup.frames) if shape.offload else 0
    return Work(a_token * passed, 4.0 * arch.dim * arch.num_layers * pairs, decoding, copied, frames)


def passes_of(setup: Setup) -> list[tuple[int, int]]:
    """The forward passes of a chunk: latent frames of each, and frames that its attention sees."""
    config, chunk = setup.config, setup.config.chunk_frames
    sees = (config.window_frames or max(setup.frames, chunk)) + config.memory_frames
    if config.schedule == "rolling":
        return [(config.pass_frames, sees), (chunk, sees)]
    steps = len(config.timesteps(config.front_frames))
    if config.context == "recompute":
        again = config.context_frames // chunk
    else:
        again = 0 if config.context_from_last_step else 1
    return [(chunk, sees)] * (steps + again)
