"""How much memory a training rollout and its backward pass take, before anything is allocated.

Counted from the shapes of what the layers make: keys and values of the past, what autograd keeps of the exit steps, and
what is alive for a moment on top. The number of denoising steps is in none of it: only the exit step is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...config import RolloutConfig
from ...model.architecture import WanArchitecture
from ...model.kv_cache import Place
from ..rollouts import CLIP_FRAMES, places_of

FLOAT = 4  # bytes of latents, statistics and rotations, whatever the model's dtype


@dataclass(frozen=True)
class RolloutMemory:
    """Bytes beyond weights and their gradients, at the moment when the most is alive.

    past: keys and values of chunks, those written and, with gradient checkpointing, those to be read again.
    text: the prompt's keys and values, and what autograd keeps of them.
    graph: what autograd keeps of the exit steps' forward passes, and the video itself.
    working: what is alive for this moment only.
    """

    past: int
    text: int
    graph: int
    working: int

    @property
    def peak(self) -> int:
        """The most that is allocated at once."""
        return self.past + self.text + self.graph + self.working

    def describe(self) -> str:
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
    """Memory of ``rollout(...)`` over ``frames`` latent frames and of the backward pass from all its latents.

    dtype: of the model; every parameter gets a gradient, and nothing flows into earlier keys and values. latent_size:
    (height, width). ``checkpointing`` as `WanForward.gradient_checkpointing`, clip_frames as of `rollout`.

    Gradients of weights are not in it: autograd sums them up over the chunks and hands them over when all are done. So
    where ``.grad`` holds something already, a second set of them is alive until then; and while a weight's sum is
    formed, one or two more tensors of its size. Norms are counted as on the CPU (fused ones may keep less), attention
    as one that keeps no weights (``matmul`` does). What autocast makes besides is not counted. Raises ValueError for
    frames that do not cut into chunks.
    """
    places = places_of(config, frames, 0)
    trained = [place for place in places if place.start >= frames - clip_frames]
    sizes = _Sizes(arch, latent_size, batch, dtype.itemsize)
    last, seen = places[-1].frames, _seen_frames(config, places[-1])
    text, video = sizes.text(), sizes.latents(frames)
    graph = video + sum(
        sizes.kept_by_checkpoints(p.frames) if checkpointing else sizes.kept(p.frames, _seen_frames(config, p))
        for p in trained
    )
    # checkpoints hold all that their blocks will look at again, turned copies of a clamped sink included
    kept_for = trained if checkpointing else []
    read = {p for reader in kept_for for p in places if p.start < reader.start and _sees(config, reader, p)}
    turned = sum(sizes.keys(_turned_frames(config, p)) for p in kept_for)
    own_turned = sizes.keys(_turned_frames(config, places[-1]))

    # the last chunk's keys and values are being written: all the graph is there, and all the past
    written = read | {p for p in places[:-1] if _outlives(config, p, places[-2])} | {places[-1]}
    past = 2 * sizes.keys(sum(p.frames for p in written)) + turned
    working = sizes.writing(last, seen) + (1 if checkpointing else 2) * own_turned
    after_forward = RolloutMemory(past, text, graph, working)

    # the backward pass has begun, with the last chunk's last block
    past = 2 * sizes.keys(sum(p.frames for p in read)) + turned
    working = sizes.backward(last, seen, recomputed=checkpointing, more_to_come=len(trained) > 1)
    in_backward = RolloutMemory(past, text, graph - video, working)
    return max(after_forward, in_backward, key=lambda memory: memory.peak)


def judging_bytes(
    arch: WanArchitecture, latent_size: tuple[int, int], batch: int, frames: int, dtype: torch.dtype, adapted: bool
) -> int:
    """The most of a pass over a whole video of ``frames`` without a gradient: what a judge takes while the rollout's
    graph is kept. adapted: its linear layers have adapters, whose part is alive beside theirs and the sum."""
    sizes = _Sizes(arch, latent_size, batch, dtype.itemsize)
    return 6 * sizes.wide(frames) + (3 if adapted else 1) * sizes.hidden(frames)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of the parts of a pass, chunks being counted in latent frames."""

    arch: WanArchitecture
    latent_size: tuple[int, int]
    batch: int
    itemsize: int

    def latents(self, frames: int) -> int:
        height, width = self.latent_size
        return self.batch * self.arch.in_dim * frames * height * width * FLOAT

    def tokens(self, frames: int) -> int:
        """How many tokens, of the whole batch."""
        rows, columns = self.arch.token_grid(self.latent_size)
        return self.batch * frames * rows * columns

    def wide(self, frames: int) -> int:
        """An activation of the model's width."""
        return self.tokens(frames) * self.arch.dim * self.itemsize

    def hidden(self, frames: int) -> int:
        """An activation of the feed-forward net's width."""
        return self.tokens(frames) * self.arch.ffn_dim * self.itemsize

    def keys(self, frames: int) -> int:
        """Keys (or values) of all layers."""
        return self.arch.num_layers * self.wide(frames)

    def text(self) -> int:
        """The text's embedding: its input, the hidden layer before and after GELU, the result. Then of each layer the
        keys and values, and what the keys' RMS norm keeps."""
        arch, rows = self.arch, self.batch * self.arch.text_len
        widths = arch.text_dim + (3 + 2 * arch.num_layers) * arch.dim
        normed = 2 * arch.num_layers * arch.dim if arch.qk_norm else 0
        return rows * (widths * self.itemsize + normed * FLOAT)

    def kept(self, frames: int, seen: int) -> int:
        """What autograd keeps of a whole forward pass."""
        return self.arch.num_layers * self.block(frames, seen) + self._ends(frames)

    def kept_by_checkpoints(self, frames: int) -> int:
        """Of every block only its input."""
        return self.arch.num_layers * self.wide(frames) + self._ends(frames)

    def block(self, frames: int, seen: int) -> int:
        """What autograd keeps of one block:

        self-attention: the input and its norm1; that modulated; queries turned; what attention gives, and o of it
        cross-attention: the input (for norm3) and its norm3; queries; what attention gives
        feed-forward: the input (for norm2) and its norm2; that modulated; the hidden layer before and after GELU; the
        result
        RMS norms of q, k and the cross-attention's q, in float32: what they are given, and that divided by its size
        keys and values of the chunk and its past side by side; statistics of norms and attention; the modulation.
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
        """Before and after the blocks: the noisy latents; the head's input, its norm and that modulated; the
        rotations; the time's embedding and its six vectors."""
        arch = self.arch
        rotations = self.tokens(frames) // self.batch * arch.head_dim * FLOAT
        time = self.batch * (arch.freq_dim + 12 * arch.dim) * self.itemsize
        return self.latents(frames) + 3 * self.wide(frames) + rotations + time

    def writing(self, frames: int, seen: int) -> int:
        """The most of a block without a gradient: in attention its input, that modulated, queries, the result, keys and
        values side by side; or, after it, two inputs, queries, one modulated twice, the hidden layer and its result."""
        attention = 4 * self.wide(frames) + 2 * self.wide(seen)
        feed_forward = 6 * self.wide(frames) + self.hidden(frames)
        return 2 * self.latents(frames) + max(attention, feed_forward)

    def backward(self, frames: int, seen: int, recomputed: bool, more_to_come: bool) -> int:
        """The most on top of the graph: the gradients in the last block, and if so the block that was computed again.

        In its feed-forward net, whose gradients are those of the block's output and of the hidden layer; or in its
        attention, whose are those of the residual, the result, the queries, keys and values, while what the second
        half of the block kept is gone. Then the head's norm and modulated input are gone as well.
        """
        wide, hidden = self.wide(frames), self.hidden(frames)
        feed_forward = 2 * wide + hidden
        attention = 3 * wide + 2 * self.wide(seen) - (9 * wide + 2 * hidden)
        again = self.block(frames, seen) - wide if recomputed else 0
        # a block that is done lets go of its input, and leaves its share of the text's gradient to that of other chunks
        text = 2 * self.batch * self.arch.text_len * self.arch.dim * self.itemsize
        left = (self.arch.num_layers - 1) * max(0, text - wide) if more_to_come else 0
        return again + max(feed_forward, attention) - 3 * wide + text + left


def _ring_start(config: RolloutConfig, place: Place) -> int:
    return 0 if config.ring_frames is None else max(0, place.start - config.ring_frames)


def _seen_frames(config: RolloutConfig, place: Place) -> int:
    """Frames that a pass at ``place`` attends to, its own included."""
    sink = min(config.sink_frames, place.start)
    return place.end - max(sink, _ring_start(config, place)) + sink


def _sees(config: RolloutConfig, place: Place, earlier: Place) -> bool:
    return earlier.start < config.sink_frames or earlier.end > _ring_start(config, place)


def _outlives(config: RolloutConfig, place: Place, newest: Place) -> bool:
    """Whether the chunk at ``place`` is still held once that at ``newest`` is written, as `KVRecord` has it."""
    ring = config.ring_frames
    return ring is None or place.start < config.sink_frames or place.end > newest.end - ring


def _turned_frames(config: RolloutConfig, place: Place) -> int:
    """Frames of a clamped sink that a pass at ``place`` turns to where they now stand."""
    moved = config.sink_position == "clamped" and _ring_start(config, place) > config.sink_frames
    return config.sink_frames if moved else 0
