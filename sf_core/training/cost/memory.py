"""Predicted memory of a training rollout and its backward pass, before anything is allocated.

The prediction adds up tensor sizes: keys and values of the past, the tensors that autograd saves of the exit steps, and
temporary tensors. The number of denoising steps does not matter, because autograd saves only the exit step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...config import RolloutConfig
from ...model.architecture import WanArchitecture
from ...model.place import Place
from ...model.sink import sink_rule
from ..rollouts import CLIP_FRAMES, block_places

FLOAT = 4  # bytes of latents, statistics and rotations, whatever the model's dtype


@dataclass(frozen=True)
class RolloutMemory:
    """Bytes at the peak, without weights and their gradients.

    Attributes:
        past: Keys and values of chunks, also those that gradient checkpointing will read again.
        text: The prompt's keys and values, and the tensors that autograd saves of them.
        graph: The tensors that autograd saves of the exit steps' forward passes, and the video.
        working: Temporary tensors.
    """

    past: int
    text: int
    graph: int
    working: int

    @property
    def peak(self) -> int:
        """The bytes allocated at the peak."""
        return self.past + self.text + self.graph + self.working

    def describe(self) -> str:
        """Return the peak and its parts as text, in GiB."""
        parts = ", ".join(f"{name} {getattr(self, name) / 2**30:.2f}" for name in ("past", "text", "graph", "working"))
        return f"{self.peak / 2**30:.2f} GiB beyond weights and gradients ({parts})"


def rollout_bytes(
    arch: WanArchitecture,
    config: RolloutConfig,
    latent_size: tuple[int, int],
    batch: int,
    frames: int,
    dtype: torch.dtype = torch.float32,
    checkpointing: bool = False,
    clip_frames: int = CLIP_FRAMES,
) -> RolloutMemory:
    """Predict the memory of a rollout and of the backward pass from all its latents.

    Every parameter gets a gradient, and no gradient flows into earlier keys and values. Gradients of weights are not
    included: autograd sums them over the chunks and stores them at the end. So where ``.grad`` is set already, a
    second set exists until then, and one or two more tensors of a weight's size while its sum is computed. Norms are
    counted as on the CPU (fused ones may save less), attention as a kernel that saves no weights (``matmul`` does).
    Copies by autocast are not counted.

    Args:
        arch: Architecture of the generator.
        config: Rollout settings.
        latent_size: (height, width) of latents.
        batch: Videos in a micro-batch.
        frames: Latent frames of the rollout.
        dtype: Dtype of the arithmetic.
        checkpointing: See `WanForward.gradient_checkpointing`.
        clip_frames: See `rollout`.

    Raises:
        ValueError: If ``frames`` is not a whole number of chunks.
    """
    places = block_places(config, frames, 0)
    trained = [place for place in places if place.start >= frames - clip_frames]
    sizes = _Sizes(arch, latent_size, batch, dtype.itemsize)
    last, seen = places[-1].frames, _seen_frames(config, places[-1])
    text, video = sizes.text(), sizes.latents(frames)
    graph = video + sum(
        sizes.saved_by_checkpoints(p.frames) if checkpointing else sizes.saved(p.frames, _seen_frames(config, p))
        for p in trained
    )
    # a checkpoint holds all that its block will read again, also the rotated copy of a clamped sink
    recomputed = trained if checkpointing else []
    read = {p for reader in recomputed for p in places if p.start < reader.start and _sees(config, reader, p)}
    rotated = sum(sizes.keys(_rotated_frames(config, p)) for p in recomputed)
    last_rotated = sizes.keys(_rotated_frames(config, places[-1]))

    # first candidate: the last chunk's keys and values are written, with the whole graph and the whole past
    written = read | {p for p in places[:-1] if _outlives(config, p, places[-2])} | {places[-1]}
    past = 2 * sizes.keys(sum(p.frames for p in written)) + rotated
    working = sizes.writing(last, seen) + (1 if checkpointing else 2) * last_rotated
    after_forward = RolloutMemory(past, text, graph, working)

    # second candidate: the backward pass is in the last block of the last chunk
    past = 2 * sizes.keys(sum(p.frames for p in read)) + rotated
    working = sizes.backward(last, seen, recomputed=checkpointing, more_to_come=len(trained) > 1)
    in_backward = RolloutMemory(past, text, graph - video, working)
    return max(after_forward, in_backward, key=lambda memory: memory.peak)


def judging_bytes(
    arch: WanArchitecture, latent_size: tuple[int, int], batch: int, frames: int, dtype: torch.dtype, adapted: bool
) -> int:
    """Predict the temporary memory of teacher or critic in a pass over a whole video without a gradient.

    Args:
        arch: Architecture of the model.
        latent_size: (height, width) of latents.
        batch: Videos in a micro-batch.
        frames: Latent frames of the video.
        dtype: Dtype of the arithmetic.
        adapted: Its linear layers have adapters, so three outputs exist at once: the layer's, the adapter's, the sum.
    """
    sizes = _Sizes(arch, latent_size, batch, dtype.itemsize)
    return 6 * sizes.wide(frames) + (3 if adapted else 1) * sizes.hidden(frames)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of the parts of a pass over a number of latent frames."""

    arch: WanArchitecture
    latent_size: tuple[int, int]
    batch: int
    itemsize: int

    def latents(self, frames: int) -> int:
        height, width = self.latent_size
        return self.batch * self.arch.in_dim * frames * height * width * FLOAT

    def tokens(self, frames: int) -> int:
        """Return the tokens of the whole batch."""
        rows, columns = self.arch.token_grid(self.latent_size)
        return self.batch * frames * rows * columns

    def wide(self, frames: int) -> int:
        """Return the bytes of an activation of the model's width."""
        return self.tokens(frames) * self.arch.dim * self.itemsize

    def hidden(self, frames: int) -> int:
        """Return the bytes of an activation of the feed-forward net's width."""
        return self.tokens(frames) * self.arch.ffn_dim * self.itemsize

    def keys(self, frames: int) -> int:
        """Return the bytes of the keys (or values) of all layers."""
        return self.arch.num_layers * self.wide(frames)

    def text(self) -> int:
        """Return the bytes that the prompt takes.

        The text embedding: its input, the hidden layer before and after GELU, its result. Each layer: keys and values,
        and what the keys' RMS norm saves.
        """
        arch, rows = self.arch, self.batch * self.arch.text_len
        widths = arch.text_dim + (3 + 2 * arch.num_layers) * arch.dim
        normed = 2 * arch.num_layers * arch.dim if arch.qk_norm else 0
        return rows * (widths * self.itemsize + normed * FLOAT)

    def saved(self, frames: int, seen: int) -> int:
        """Return the bytes that autograd saves of a whole forward pass."""
        return self.arch.num_layers * self.block(frames, seen) + self._ends(frames)

    def saved_by_checkpoints(self, frames: int) -> int:
        """Return the bytes that checkpoints save of a forward pass: of every block only its input."""
        return self.arch.num_layers * self.wide(frames) + self._ends(frames)

    def block(self, frames: int, seen: int) -> int:
        """Return the bytes that autograd saves of one block.

        * Self-attention: the input, its norm1, the modulated norm, rotated queries, the attention's output, its
          projection o.
        * Cross-attention: the input (for norm3), its norm3, queries, the attention's output.
        * Feed-forward: the input (for norm2), its norm2, the modulated norm, the hidden layer before and after GELU,
          the result.
        * RMS norms of q, k and the cross-attention's q, in float32: their input, and their result without the weight.
        * Concatenated keys and values of the chunk and its past, statistics of norms and attention, the modulation.
        """
        arch = self.arch
        activations = 6 + (4 if arch.cross_attn_norm else 3) + 4
        normed = 6 if arch.qk_norm else 0
        statistics = 2 * arch.num_heads + 6 + (3 if arch.qk_norm else 0)
        return (
            activations * self.wide(frames)
            + normed * self.tokens(frames) * arch.dim * FLOAT
            + 2 * self.wide(seen)
            + 2 * self.hidden(frames)
            + statistics * self.tokens(frames) * FLOAT
            + 8 * self.batch * arch.dim * self.itemsize
        )

    def _ends(self, frames: int) -> int:
        """Return the bytes saved outside the blocks.

        The noisy latents; the head's input, its norm, the modulated norm; the rotations; the time embedding and its six
        modulation vectors.
        """
        arch = self.arch
        rotations = self.tokens(frames) // self.batch * arch.head_dim * FLOAT
        time = self.batch * (arch.freq_dim + 12 * arch.dim) * self.itemsize
        return self.latents(frames) + 3 * self.wide(frames) + rotations + time

    def writing(self, frames: int, seen: int) -> int:
        """Return the peak bytes of a block without a gradient.

        In attention: the input, the modulated input, queries, the result, concatenated keys and values. After it: two
        inputs, queries, two modulated tensors, the hidden layer, its result.
        """
        attention = 4 * self.wide(frames) + 2 * self.wide(seen)
        feed_forward = 6 * self.wide(frames) + self.hidden(frames)
        return 2 * self.latents(frames) + max(attention, feed_forward)

    def backward(self, frames: int, seen: int, recomputed: bool, more_to_come: bool) -> int:
        """Return the peak bytes of the backward pass beyond the graph, in the last block.

        Either in the feed-forward net: gradients of the block's output and of the hidden layer. Or in attention:
        gradients of the residual, the result, the queries, keys and values, when the saved tensors of the block's
        second half are freed. The head's norm and its modulated input are freed in both cases.

        Args:
            frames: Latent frames of the chunk.
            seen: Latent frames that it attends to.
            recomputed: The block is computed again (gradient checkpointing).
            more_to_come: Earlier chunks have a gradient too.
        """
        wide, hidden = self.wide(frames), self.hidden(frames)
        feed_forward = 2 * wide + hidden
        attention = 3 * wide + 2 * self.wide(seen) - (9 * wide + 2 * hidden)
        again = self.block(frames, seen) - wide if recomputed else 0
        # a finished block frees its input, and holds its part of the text's gradient until other chunks add theirs
        text = 2 * self.batch * self.arch.text_len * self.arch.dim * self.itemsize
        text_gradients = (self.arch.num_layers - 1) * max(0, text - wide) if more_to_come else 0
        return again + max(feed_forward, attention) - 3 * wide + text + text_gradients


def _ring_start(config: RolloutConfig, place: Place) -> int:
    return 0 if config.ring_frames is None else max(0, place.start - config.ring_frames)


def _seen_frames(config: RolloutConfig, place: Place) -> int:
    """Return the number of frames that a pass at ``place`` attends to, its own included."""
    sink = min(config.sink_frames, place.start)
    return place.end - max(sink, _ring_start(config, place)) + sink


def _sees(config: RolloutConfig, place: Place, earlier: Place) -> bool:
    return earlier.start < config.sink_frames or earlier.end > _ring_start(config, place)


def _outlives(config: RolloutConfig, place: Place, newest: Place) -> bool:
    """Whether `KVRecord` still holds the chunk at ``place`` after the chunk at ``newest`` is written."""
    ring = config.ring_frames
    return ring is None or place.start < config.sink_frames or place.end > newest.end - ring


def _rotated_frames(config: RolloutConfig, place: Place) -> int:
    """Return the number of frames of the sink that a pass at ``place`` rotates to a new position."""
    rule = sink_rule(config.sink_position, config.trained_frames)
    oldest = max(_ring_start(config, place), min(config.sink_frames, place.start))
    return config.sink_frames if rule.shift(config.sink_frames, oldest, place.end) else 0
