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
from .cache_storage import DeviceStorage, Lane
from .kv_cache import RollingKVCache
from .kv_formats import FORMATS, New, StoredFrames
from .layer_view import BlockView, KeysValues, LayerView

Runs = Sequence[tuple[int, int]]  # (slot behind the front, count)
Ring = tuple[StoredFrames, StoredFrames]


def new_cache(shape: CacheShape) -> RollingKVCache:
    """The cache of a shape."""
    return RollingKVCache(shape) if shape.kv_dtype is None else QuantisedKVCache(shape)


class QuantisedKVCache(RollingKVCache):
    """See the module's docstring."""

    def __init__(self, shape: CacheShape) -> None:
        self._format = FORMATS[shape.kv_dtype or ""]
        super().__init__(shape)
        with torch.inference_mode(False):
            self._reserve_rings(self._capacity)
            self._ring = [self._new_ring(self._capacity, self.storage.new) for _ in range(shape.layers)]
            self._block = [self.buffer(shape.block_frames) for _ in range(2)]

    def _reserve_rings(self, frames: int) -> None:
        self.storage.reserve(self.shape.layers, self.shape.ring_buffers(frames))

    def _new_ring(self, frames: int, new: New) -> Ring:
        """Buffers of one layer's keys and values."""
        s = self.shape
        sizes = (frames, s.batch, s.frame_tokens, s.heads, s.head_dim, s.dtype, new)
        return StoredFrames.zeros(self._format.keys, *sizes), StoredFrames.zeros(self._format.values, *sizes)

    def _own_lanes(self) -> list[Lane]:
        lanes = super()._own_lanes()
        if self.shape.offload:
            for lane in lanes:
                lane.ring = self._new_ring(self._capacity, DeviceStorage(self.shape.device).new)
                for tensor in lane.tensors:
                    self.storage.lend(tensor)
        return lanes

    def _held(self) -> list[Tensor]:
        return [*super()._held(), *(tensor for ring in self._ring for one in ring for tensor in one.tensors)]

    def _working(self) -> list[Tensor]:
        return [*super()._working(), *self._block]

    def view(self, layer: int, keys: Tensor, values: Tensor, parts: Runs, lane: Lane | None = None) -> LayerView:
        """See `RollingKVCache.view`."""
        step = self.shape.block_frames
        blocks = [(at, min(step, slot + count - at)) for slot, count in parts for at in range(slot, slot + count, step)]
        ring = self._ring[layer] if lane is None or lane.ring is None else lane.ring
        tensors = [tensor for one in ring for tensor in one.tensors]
        return BlockView.over(keys, values, partial(self._decoded, ring, blocks), (tensors, blocks))

    def load_parts(self, layer: int, parts: Runs, lane: Lane) -> None:
        """See `RollingKVCache.load_parts`."""
        for here, kept in zip(lane.ring or (), self._ring[layer], strict=False):
            for slot, count in parts:
                here.copy_of(kept, slot - self.shape.sink_frames, count)

    def _decoded(self, ring: Ring, blocks: Runs) -> Iterator[KeysValues]:
        """Keys and values of one block after the other, in buffers that the next one overwrites."""
        unit = self.shape.frame_tokens
        for slot, count in blocks:
            keys, values = (buffer[:, : count * unit] for buffer in self._block)
            self._decode(ring, slot, keys, values)
            yield keys, values

    def _decode(self, ring: Ring, slot: int, keys: Tensor, values: Tensor) -> None:
        """Decode the frames from ``slot`` behind the front on into ``keys`` and ``values`` [B, tokens, heads, D]."""
        for stored, out in zip(ring, (keys, values), strict=True):
            stored.get(slot - self.shape.sink_frames, self._framed(out))

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
        self._decode(self._ring[layer], slot, keys, values)
        return keys, values

    def _grow_buffers(self, frames: int) -> None:
        self._reserve_rings(frames)
        for layer, ring in enumerate(self._ring):
            self._ring[layer] = self._new_ring(frames, self.storage.new)
            for own, old in zip(self._ring[layer], ring, strict=True):
                own.copy_of(old, 0, self._capacity)
