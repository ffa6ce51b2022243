"""The rolling cache of keys and values.

One layer's keys are one buffer, counted in latent frames (values alike)::

    [ front: the current chunk | sink: a scene's first frames | ring: the newest frames before the chunk ]

Keys carry their rotary position, so their order in memory does not matter to attention. Each denoising step writes the
chunk to the end of the front, and attention reads one slice: from there to the last filled slot. `commit` copies a
clean chunk from the front over the oldest frames of the ring. Until then no other frame is lost (`open` may rotate the
sink, from a copy), so a chunk may be abandoned at any time. cache_shape.py says which frame is in which slot.
quantised_cache.py keeps the ring in another number format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .bank import keep_best
from .cache_shape import SINK_MEAN, CacheShape, Leaving, Place, Seen
from .layer_view import KeysValues, LayerView
from .rope import apply_rope, frame_rotation


class RollingKVCache:
    """Self-attention keys and values of every layer, and the prompt's. See the module's docstring."""

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self._capacity = shape.ring_capacity(0)
        with torch.inference_mode(False):  # a host may run one chunk in inference mode and the next outside
            slots = shape.whole_frames(self._capacity)
            self._keys = [self.buffer(slots) for _ in range(shape.layers)]
            self._values = [self.buffer(slots) for _ in range(shape.layers)]
            # a sink that moves is rotated for each chunk, always from the keys as they were written
            averaged = shape.sink_average is not None
            copies, dtype = shape.layers if shape.keeps_sink else 0, SINK_MEAN if averaged else shape.dtype
            self._written_sink = [self.buffer(shape.sink_frames, dtype) for _ in range(copies)]
            self._sink_values = [self.buffer(shape.sink_frames, dtype) for _ in range(copies if averaged else 0)]
            places = 0 if shape.bank is None else shape.bank.frames
            self._bank = [(self.buffer(places), self.buffer(places)) for _ in range(shape.layers if places else 0)]
            self.shared = [self.buffer(shape.shared_frames) for _ in range(2 if shape.shared_frames else 0)]
        self._shift: int | None = 0  # shift of the sink in the buffers; None: unknown
        self._text: tuple[bytes, list[KeysValues]] | None = None

    def buffer(self, frames: int, dtype: torch.dtype | None = None) -> Tensor:
        """A new buffer of keys, or values, of one layer."""
        s = self.shape
        tokens = frames * s.frame_tokens
        return torch.zeros(s.batch, tokens, s.heads, s.head_dim, dtype=dtype or s.dtype, device=s.device)

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated now."""
        text = [t for pair in (self._text[1] if self._text else []) for t in pair]
        bank = [t for pair in self._bank for t in pair]
        kept = (*self._written_sink, *self._sink_values, *bank, *self.shared)
        return sum(t.nbytes for t in (*self._keys, *self._values, *kept, *text))

    def text(self, key: bytes, compute: Callable[[], list[KeysValues]]) -> list[KeysValues]:
        """The prompt's keys and values, computed again when ``key`` changes: it stands for the prompt and the model."""
        if self._text is None or self._text[0] != key:
            self._text = None  # free the old tensors before the new ones are allocated
            self._text = (key, compute())
        return self._text[1]

    def open(self, place: Place) -> Sequence[LayerView]:
        """Views for a pass at ``place``: the chunk's slots, then everything that it attends to. Commits nothing."""
        self._reserve(place)
        self._rotate_sink(self.shape.sink_shift(place))
        shape, unit = self.shape, self.shape.frame_tokens
        whole, parts = self.whole_runs([(0, sum(shape.history(place)))])
        first = (shape.front_frames - place.frames) * unit
        last = (shape.front_frames + sum(count for _, count in whole)) * unit
        pairs = enumerate(zip(self._keys, self._values, strict=True))
        return [self.view(layer, keys[:, first:last], values[:, first:last], parts) for layer, (keys, values) in pairs]

    def view(self, layer: int, keys: Tensor, values: Tensor, parts: Sequence[tuple[int, int]]) -> LayerView:
        """The view of a layer's ``keys`` and ``values``, and of ``parts``, runs that are not among them."""
        return LayerView((keys, values))

    def whole_runs(
        self, runs: Sequence[tuple[int, int]]
    ) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]:
        """Divide ``runs`` (slot behind the front, count) into those in the buffers and those kept in another format."""
        return runs, []

    def open_wide(self, place: Place, keep_sink: bool = False, bank_frame: int | None = None) -> WideViews:
        """Views for a pass at ``place`` that may have more frames than the front, and that stores what it writes.

        The frame with the index ``bank_frame`` also enters the bank.
        """
        self._reserve(place)
        seen = self.shape.seen(place)
        self._rotate_sink(seen.shift)
        return WideViews(self, place, seen, self.shape.committed_runs(place, keep_sink), bank_frame)

    def open_in_flight(self, place: Place) -> WideViews:
        """Views for a pass at ``place`` over noisy chunks, of which nothing is stored."""
        seen = self.shape.seen(place, in_flight=True)
        self._rotate_sink(seen.shift)
        return WideViews(self, place, seen, [])

    def commit(self, place: Place, keep_sink: bool = False) -> None:
        """Copy the chunk that the newest pass at ``place`` left in the front into the sink or over the oldest frames.

        `open` must have been called for ``place`` right before: a sink that moves is written at shift 0.
        """
        front, unit = self.shape.front_frames, self.shape.frame_tokens
        chunk = slice((front - place.frames) * unit, front * unit)
        shape, runs = self.shape, self.shape.committed_runs(place, keep_sink)
        leaving = [(gone, frame_rotation(gone.turn, shape.head_dim, shape.device)) for gone in shape.leaving(place)]
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            new = keys[:, chunk.start : chunk.stop], values[:, chunk.start : chunk.stop]
            if leaving:
                self._average(layer, *new, leaving)
            self.store(layer, *new, runs)

    def store(self, layer: int, keys: Tensor, values: Tensor, runs: Sequence[tuple[int, int, int]]) -> None:
        """Copy frames of ``keys`` and ``values`` [B, tokens, heads, D] along ``runs``, see `committed_runs`."""
        unit = self.shape.frame_tokens
        for source, target, count in runs:
            chunk = slice(source * unit, (source + count) * unit)
            self.put(layer, target, keys[:, chunk], values[:, chunk])
            into_sink = min(count, self.shape.sink_frames - target)
            if into_sink > 0 and self._written_sink:
                own = slice(chunk.start, chunk.start + into_sink * unit)
                sink_slots = slice(target * unit, (target + into_sink) * unit)
                self._written_sink[layer][:, sink_slots] = keys[:, own]
                if self._sink_values:
                    self._sink_values[layer][:, sink_slots] = values[:, own]

    def put(self, layer: int, slot: int, keys: Tensor, values: Tensor) -> None:
        """Copy keys and values [B, tokens, heads, D] of whole frames into slots, from ``slot`` behind the front on."""
        slots = self.frames(layer, slot, keys.shape[1] // self.shape.frame_tokens)
        for buffer, new in zip(slots, (keys, values), strict=True):
            buffer[:] = new

    def frames(self, layer: int, slot: int, count: int) -> KeysValues:
        """Keys and values of ``count`` frames from ``slot`` behind the front on, to be read."""
        first, unit = self.shape.front_frames + slot, self.shape.frame_tokens
        slots = slice(first * unit, (first + count) * unit)
        return self._keys[layer][:, slots], self._values[layer][:, slots]

    def _average(self, layer: int, keys: Tensor, values: Tensor, leaving: Sequence[tuple[Leaving, Tensor]]) -> None:
        """Let the sink of a layer follow what leaves the ring (Reward Forcing).

        Keys are averaged at the sink's own positions, values as they are. Frame f is averaged into frame f modulo the
        sink's length, counted from the scene's first.
        """
        shape, unit, front = self.shape, self.shape.frame_tokens, self.shape.front_frames
        assert shape.sink_average is not None
        for gone, turn in leaving:
            if gone.slot < 0:
                of_pass = slice(gone.index * unit, (gone.index + gone.count) * unit)
                key, value = keys[:, of_pass], values[:, of_pass]
            else:
                key, value = self.frames(layer, gone.slot, gone.count)
            into = slice(gone.into * unit, (gone.into + gone.count) * unit)
            self._written_sink[layer][:, into].lerp_(apply_rope(key.to(SINK_MEAN), turn), 1 - shape.sink_average)
            self._sink_values[layer][:, into].lerp_(value.to(SINK_MEAN), 1 - shape.sink_average)
            seen = slice((front + gone.into) * unit, (front + gone.into + gone.count) * unit)
            self._values[layer][:, seen] = self._sink_values[layer][:, into]
        self._shift = None  # the keys are rotated anew

    def load(self, layer: int, runs: Sequence[tuple[int, int]], keys: Tensor, values: Tensor) -> None:
        """Copy the frames of ``runs`` (slot behind the front, count) into ``keys`` and ``values``, run after run."""
        at = 0
        for slot, count in runs:
            into = slice(at, at + count * self.shape.frame_tokens)
            keys[:, into], values[:, into] = self.frames(layer, slot, count)
            at = into.stop

    def load_bank(self, layer: int, frames: int, keys: Tensor, values: Tensor) -> None:
        """Copy the first ``frames`` frames of the bank to the end of ``keys`` and ``values``."""
        for bank, seen in zip(self._bank[layer], (keys, values), strict=True):
            tokens = frames * self.shape.frame_tokens
            seen[:, seen.shape[1] - tokens :] = bank[:, :tokens]

    def enter_bank(self, layer: int, place: Place, frame: int, keys: Tensor, values: Tensor) -> None:
        """Let the frame with the index ``frame`` of a pass enter the bank, under the prompt of the newest pass."""
        rule, unit = self.shape.bank, self.shape.frame_tokens
        assert rule is not None
        assert self._text is not None
        new = keys[:, frame * unit : (frame + 1) * unit], values[:, frame * unit : (frame + 1) * unit]
        at = rule.place(place.start + frame, place.scene)
        if at is None:
            keep_best(*self._bank[layer], self._text[1][layer][0], new)
        else:
            for bank, newest in zip(self._bank[layer], new, strict=True):
                bank[:, at * unit : (at + 1) * unit] = newest

    def _rotate_sink(self, shift: int) -> None:
        """Rotate the sink by ``shift`` frames, from its keys as they were written."""
        if shift == self._shift:
            return
        self._shift = None
        start = self.shape.front_frames * self.shape.frame_tokens
        rotation = frame_rotation(shift, self.shape.head_dim, self.shape.device)
        for written, keys in zip(self._written_sink, self._keys, strict=True):
            keys[:, start : start + written.shape[1]] = apply_rope(written, rotation) if shift else written
        self._shift = shift

    def _reserve(self, place: Place) -> None:
        """Grow an unbounded ring until the chunk at ``place`` fits."""
        needed = self.shape.ring_capacity(place.end - place.ring_origin + self.shape.sink_frames)
        if needed <= self._capacity:
            return
        with torch.inference_mode(False):
            self._grow(needed)
        self._capacity = needed

    def _grow(self, frames: int) -> None:
        """Grow the ring to ``frames`` frames."""
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                grown = self.buffer(self.shape.whole_frames(frames))
                grown[:, : old.shape[1]] = old
                buffers[layer] = grown

    def copy_from(self, other: RollingKVCache) -> None:
        """Copy keys and values of ``other``, a cache of the same shape; the prompt's are computed again."""
        mine, theirs = (
            (cache._keys, cache._values, cache._written_sink, cache._sink_values) for cache in (self, other)
        )
        for own, others in zip(mine, theirs, strict=True):
            own[:] = [buffer.clone() for buffer in others]
        self._bank = [(keys.clone(), values.clone()) for keys, values in other._bank]
        self._capacity, self._shift = other._capacity, other._shift


class WideViews(Sequence[LayerView]):
    """Views for a pass that the front does not hold, or that does not attend to all of the ring.

    They are made layer by layer, in one buffer that all layers share: what a layer attends to is copied behind the
    pass's own frames, and its new keys and values are stored when the next layer is asked for, or by `close`. So a pass
    takes the memory of one layer, and its layers have to be asked for in turn.

    Args:
        cache: The cache, whose sink is at the position that the pass sees.
        place: The place of the pass.
        seen: What it attends to.
        runs: What is stored, see `CacheShape.committed_runs`; empty: nothing.
        bank_frame: Index of the frame of the pass that enters the bank. None: none does.
    """

    def __init__(
        self,
        cache: RollingKVCache,
        place: Place,
        seen: Seen,
        runs: list[tuple[int, int, int]],
        bank_frame: int | None = None,
    ) -> None:
        shape = cache.shape
        self._cache, self._place, self._runs, self._bank_frame = cache, place, runs, bank_frame
        self._bank = seen.bank
        past = [*([(0, seen.sink)] if seen.sink else []), *shape.ring_runs(place, seen.ring)]
        self._whole, self._parts = cache.whole_runs(past)
        frames = place.frames + sum(count for _, count in self._whole) + seen.bank
        self._own = place.frames * shape.frame_tokens
        with torch.inference_mode(False):
            buffers = cache.shared if frames <= shape.shared_frames else [cache.buffer(frames), cache.buffer(frames)]
        self._keys, self._values = (buffer[:, : frames * shape.frame_tokens] for buffer in buffers)
        self._layer: int | None = None  # whose keys and values are in the buffers

    def __len__(self) -> int:
        return self._cache.shape.layers

    def __getitem__(self, layer: Any) -> Any:
        self.close()
        self._cache.load(layer, self._whole, self._keys[:, self._own :], self._values[:, self._own :])
        if self._bank:
            self._cache.load_bank(layer, self._bank, self._keys, self._values)
        self._layer = layer
        return self._cache.view(layer, self._keys, self._values, self._parts)

    def close(self) -> None:
        """Store the keys and values of the newest layer."""
        if self._layer is not None:
            new = self._keys[:, : self._own], self._values[:, : self._own]
            self._cache.store(self._layer, *new, self._runs)
            if self._bank_frame is not None:
                self._cache.enter_bank(self._layer, self._place, self._bank_frame, *new)
        self._layer = None
