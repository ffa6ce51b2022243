"""A rolling cache whose ring is quantised: `RolloutConfig.kv_dtype`.

The chunk at work, the sink and the bank stay as the model computes them. A chunk is encoded once, when it is committed,
and from then on decoded in blocks of some frames, layer by layer, into one buffer: no whole copy of the window exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from .cache_shape import CacheShape
from .kv_cache import RollingKVCache
from .kv_formats import FORMATS, StoredFrames
from .layer_view import BlockView, KeysValues, LayerView

Runs = Sequence[tuple[int, int]]  # (slot behind the front, count)


def new_cache(shape: CacheShape) -> RollingKVCache:
    """The cache of a shape."""
    return RollingKVCache(shape) if shape.kv_dtype is None else QuantisedKVCache(shape)


class QuantisedKVCache(RollingKVCache):
    """See the module's docstring."""

    def __init__(self, shape: CacheShape) -> None:
        super().__init__(shape)
        self._format = FORMATS[shape.kv_dtype or ""]
        with torch.inference_mode(False):
            self._ring = [self._new_ring(self._capacity) for _ in range(shape.layers)]
            self._block = [self.buffer(shape.block_frames) for _ in range(2)]

    def _new_ring(self, frames: int) -> tuple[StoredFrames, StoredFrames]:
        """Buffers of one layer's keys and values."""
        s = self.shape
        sizes = (frames, s.batch, s.frame_tokens, s.heads, s.head_dim, s.dtype, s.device)
        return StoredFrames.zeros(self._format.keys, *sizes), StoredFrames.zeros(self._format.values, *sizes)

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated now."""
        ring = [tensor for pair in self._ring for one in pair for tensor in one.tensors]
        return super().nbytes + sum(tensor.nbytes for tensor in (*ring, *self._block))

    def view(self, layer: int, keys: Tensor, values: Tensor, runs: Runs) -> LayerView:
        """See `RollingKVCache.view`."""
        step = self.shape.block_frames
        blocks = [(at, min(step, slot + count - at)) for slot, count in runs for at in range(slot, slot + count, step)]
        tensors = [tensor for one in self._ring[layer] for tensor in one.tensors]
        return BlockView.over(keys, values, partial(self._decoded, layer, blocks), (tensors, blocks))

    def _decoded(self, layer: int, blocks: Runs) -> Iterator[KeysValues]:
        """Keys and values of one block after the other, in buffers that the next one overwrites."""
        unit = self.shape.frame_tokens
        for slot, count in blocks:
            keys, values = (buffer[:, : count * unit] for buffer in self._block)
            self._decode(layer, slot, keys, values)
            yield keys, values

    def _decode(self, layer: int, slot: int, keys: Tensor, values: Tensor) -> None:
        """Decode the frames from ``slot`` behind the front on into ``keys`` and ``values`` [B, tokens, heads, D]."""
        for ring, out in zip(self._ring[layer], (keys, values), strict=True):
            ring.get(slot - self.shape.sink_frames, self._framed(out))

    def _framed(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(1, (-1, self.shape.frame_tokens))

    def whole_runs(self, runs: Runs) -> tuple[Runs, Runs]:
        """See `RollingKVCache.whole_runs`."""
        sink = self.shape.sink_frames
        whole = [(slot, min(count, sink - slot)) for slot, count in runs if slot < sink]
        parts = [(max(slot, sink), slot + count - max(slot, sink)) for slot, count in runs if slot + count > sink]
        return whole, parts

    def put(self, layer: int, slot: int, keys: Tensor, values: Tensor) -> None:
        """See `RollingKVCache.put`."""
        sink, unit = self.shape.sink_frames, self.shape.frame_tokens
        in_sink = min(keys.shape[1] // unit, max(0, sink - slot)) * unit
        if in_sink:
            super().put(layer, slot, keys[:, :in_sink], values[:, :in_sink])
        if in_sink < keys.shape[1]:
            for ring, new in zip(self._ring[layer], (keys, values), strict=True):
                ring.put(max(slot, sink) - sink, self._framed(new[:, in_sink:]))

    def frames(self, layer: int, slot: int, count: int) -> KeysValues:
        """See `RollingKVCache.frames`."""
        if slot < self.shape.sink_frames:
            return super().frames(layer, slot, count)
        keys, values = self.buffer(count), self.buffer(count)
        self._decode(layer, slot, keys, values)
        return keys, values

    def _grow(self, frames: int) -> None:
        self._take(self._ring, frames)

    def copy_from(self, other: RollingKVCache) -> None:
        """See `RollingKVCache.copy_from`."""
        assert isinstance(other, QuantisedKVCache)
        super().copy_from(other)
        with torch.inference_mode(False):
            self._take(other._ring, other._capacity)

    def _take(self, rings: Sequence[tuple[StoredFrames, StoredFrames]], frames: int) -> None:
        """Copy ``rings`` into new buffers of ``frames`` frames, layer by layer."""
        for layer, pair in enumerate(rings):
            self._ring[layer] = self._new_ring(frames)
            for own, old in zip(self._ring[layer], pair, strict=True):
                own.copy_of(old)
