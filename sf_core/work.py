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


def linear_flops(arch: WanArchitecture, latent_size: tuple[int, int], frames: int) -> float:
    """Operations of the linear layers in one pass over ``frames`` latent frames; a multiply-add counts as two."""
    rows, columns = arch.token_grid(latent_size)
    dense = 6 * arch.dim**2 + 2 * arch.dim * arch.ffn_dim  # q, k, v, o; q and o of the text's; the feed-forward net
    return 2.0 * arch.num_layers * frames * rows * columns * dense


def attention_flops(arch: WanArchitecture, latent_size: tuple[int, int], frames: int, seen: int) -> float:
    """Operations of attention, to ``seen`` latent frames and the prompt, in one pass over ``frames``."""
    rows, columns = arch.token_grid(latent_size)
    tokens, keys = frames * rows * columns, seen * rows * columns
    return 4.0 * arch.num_layers * tokens * arch.dim * (keys + arch.text_len)


def work_of(arch: WanArchitecture, shape: CacheShape, setup: Setup) -> Work:
    """Count the work of a chunk.

    Args:
        arch: Sizes of the transformer.
        shape: Shape of the cache, see `CausalModel.cache_shape`.
        setup: Settings of the run.
    """
    passes = passes_of(setup)
    products = sum(linear_flops(arch, setup.latent_size, frames) for frames, _ in passes) * setup.batch
    attention = sum(attention_flops(arch, setup.latent_size, *one) for one in passes) * setup.batch
    decoder, chunk = setup.decoder, setup.config.chunk_frames
    frames = chunk * (decoder.temporal_factor if decoder else 4)
    decoding = 0.0 if decoder is None else decoder.work(setup) * frames
    copied = len(passes) * shape.host_bytes(setup.frames) if shape.offload else 0
    return Work(products, attention, decoding, copied, frames)


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
