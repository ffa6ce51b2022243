"""The rolling cache of keys and values.

One layer's keys are one buffer, counted in latent frames (values alike)::

    [ front: the current chunk | sink: a scene's first frames | ring: the newest frames before the chunk ]

Keys carry their rotary position, so their order in memory does not matter to attention. Each denoising step writes the
chunk to the end of the front, and attention reads one slice: from there to the last filled slot. `commit` copies a
clean chunk from the front over the oldest frames of the ring. Until then no other frame is lost (`open` may rotate the
sink, from a copy), so a chunk may be abandoned at any time. cache_shape.py says which frame is in which slot.
quantised_cache.py keeps the ring in another number format. cache_storage.py may keep all of it in host memory: then
there is no front, and every pass goes layer by layer (wide_views.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor

from .bank import keep_best
from .cache_shape import SINK_MEAN, CacheShape
from .cache_storage import Lane, storage_of, updating
from .layer_view import KeysValues, LayerView
from .place import Leaving, Place
from .rope import apply_rope, frame_rotation


class RollingKVCache:
    """Self-attention keys and values of every layer, and the prompt's. See the module's docstring."""

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self.storage = storage_of(shape.device, shape.offload)
        self._capacity = shape.ring_capacity(0)
        with torch.inference_mode(False):  # a host may run one chunk in inference mode and the next outside
            both = self.kept(2 * shape.layers, shape.whole_frames(self._capacity))
            self._keys, self._values = both[: shape.layers], both[shape.layers :]
            # a sink that moves is rotated for each chunk, always from the keys as they were written
            averaged = shape.sink_average is not None
            dtype = SINK_MEAN if averaged else shape.dtype
            self._written_sink = self.kept(shape.layers * shape.copies_sink, shape.sink_frames, dtype)
            self._sink_values = self.kept(shape.layers * averaged, shape.sink_frames, dtype)
            places = 0 if shape.bank is None else shape.bank.frames
            bank = self.kept(2 * shape.layers if places else 0, places)
            self._bank = list(zip(bank[::2], bank[1::2], strict=True))
            self.lanes = self._own_lanes() if shape.lanes else []
        self._shift: int | None = 0  # shift of the sink in the buffers; None: unknown
        self._text: tuple[bytes, list[KeysValues]] | None = None

    def buffer(self, frames: int, dtype: torch.dtype | None = None) -> Tensor:
        """A new buffer of keys, or values, of one layer."""
        s = self.shape
        tokens = frames * s.frame_tokens
        return torch.zeros(s.batch, tokens, s.heads, s.head_dim, dtype=dtype or s.dtype, device=s.device)

    def kept(self, count: int, frames: int, dtype: torch.dtype | None = None) -> list[Tensor]:
        """``count`` new buffers of keys, or values, of one layer, to be kept between passes."""
        return list(self._each_kept(count, frames, dtype or self.shape.dtype))

    def _each_kept(self, count: int, frames: int, dtype: torch.dtype) -> Iterator[Tensor]:
        s = self.shape
        size = (s.batch, frames * s.frame_tokens, s.heads, s.head_dim)
        self.storage.reserve(count, [prod(size) * dtype.itemsize])
        for _ in range(count):
            yield self.storage.new(size, dtype)

    def new_lanes(self, frames: int) -> list[Lane]:
        """Buffers of ``frames`` latent frames for wide passes, one for each layer that the device has at a time."""
        lanes = [Lane(self.buffer(frames), self.buffer(frames)) for _ in range(self.shape.lanes or 1)]
        for lane in lanes:
            self.storage.lend(lane.keys)
            self.storage.lend(lane.values)
        return lanes

    def _own_lanes(self) -> list[Lane]:
        return self.new_lanes(self.shape.lane_frames(self._capacity))

    def _held(self) -> list[Tensor]:
        """All tensors that are kept between passes, but the prompt's."""
        bank = [tensor for pair in self._bank for tensor in pair]
        return [*self._keys, *self._values, *self._written_sink, *self._sink_values, *bank]

    def _working(self) -> list[Tensor]:
        """All tensors that one layer after the other is copied to, and the prompt's."""
        text = [tensor for pair in (self._text[1] if self._text else []) for tensor in pair]
        return [*text, *(tensor for lane in self.lanes for tensor in lane.tensors)]

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated now on the device."""
        return _nbytes(self._working()) + (0 if self.shape.offload else _nbytes(self._held()))

    @property
    def host_nbytes(self) -> int:
        """Bytes that are allocated now in host memory, of an offloaded cache."""
        return _nbytes(self._held()) if self.shape.offload else 0

    def text(self, key: bytes, compute: Callable[[], list[KeysValues]]) -> list[KeysValues]:
        """The prompt's keys and values, computed again when ``key`` changes: it stands for the prompt and the model."""
        if self._text is None or self._text[0] != key:
            self._text = None  # free the old tensors before the new ones are allocated
            self._text = (key, compute())
        return self._text[1]

    def open(self, place: Place) -> Sequence[LayerView]:
        """Views for a pass at ``place``: the chunk's slots, then everything that it attends to. Commits nothing."""
        self.make_ready(place, self.shape.sink_shift(place))
        shape, unit = self.shape, self.shape.frame_tokens
        whole, parts = self.whole_runs([(0, sum(shape.history(place)))])
        first = (shape.front_frames - place.frames) * unit
        last = (shape.front_frames + sum(count for _, count in whole)) * unit
        pairs = enumerate(zip(self._keys, self._values, strict=True))
        return [self.view(layer, keys[:, first:last], values[:, first:last], parts) for layer, (keys, values) in pairs]

    def view(
        self, layer: int, keys: Tensor, values: Tensor, parts: Sequence[tuple[int, int]], lane: Lane | None = None
    ) -> LayerView:
        """The view of a layer's ``keys`` and ``values``, and of ``parts``, runs that are not among them.

        Args:
            layer: The layer.
            keys: Its keys [B, tokens, heads, D]; ``values`` likewise.
            values: See ``keys``.
            parts: Runs (slot behind the front, count) that are kept in another format.
            lane: Where an offloaded layer was copied to.
        """
        return LayerView((keys, values))

    def whole_runs(
        self, runs: Sequence[tuple[int, int]]
    ) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]:
        """Divide ``runs`` (slot behind the front, count) into those in the buffers and those kept in another format."""
        return runs, []

    def make_ready(self, place: Place, shift: int) -> None:
        """Make room for the pass at ``place``, and turn the sink by ``shift`` frames."""
        self._reserve(place)
        self._rotate_sink(shift)

    def commit(self, place: Place, keep_sink: bool = False) -> None:
        """Copy the chunk that the newest pass at ``place`` left in the front into the sink or over the oldest frames.

        `open` must have been called for ``place`` right before: a sink that moves is written at shift 0.
        """
        front, unit = self.shape.front_frames, self.shape.frame_tokens
        chunk = slice((front - place.frames) * unit, front * unit)
        runs, leaving = self.shape.committed_runs(place, keep_sink), self.leaving(place)
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            new = keys[:, chunk.start : chunk.stop], values[:, chunk.start : chunk.stop]
            self.store(layer, *new, runs, leaving)

    def leaving(self, place: Place) -> Sequence[tuple[Leaving, Tensor]]:
        """What leaves the ring at ``place`` and is averaged into the sink, and the rotation to the sink's positions."""
        turn = partial(frame_rotation, head_dim=self.shape.head_dim, device=self.shape.device)
        return [(gone, turn(gone.turn)) for gone in self.shape.leaving(place)]

    def store(
        self,
        layer: int,
        keys: Tensor,
        values: Tensor,
        runs: Sequence[tuple[int, int, int]],
        leaving: Sequence[tuple[Leaving, Tensor]] = (),
    ) -> None:
        """Copy frames of ``keys`` and ``values`` [B, tokens, heads, D] along ``runs``, see `committed_runs`.

        Before that, what is ``leaving`` for them is averaged into the sink.
        """
        if leaving:
            self._average(layer, keys, values, leaving)
        unit = self.shape.frame_tokens
        for source, target, count in runs:
            chunk = slice(source * unit, (source + count) * unit)
            self.put(layer, target, keys[:, chunk], values[:, chunk])
            into_sink = min(count, self.shape.sink_frames - target)
            if into_sink > 0 and self._written_sink:
                own = slice(chunk.start, chunk.start + into_sink * unit)
                sink_slots = slice(target * unit, (target + into_sink) * unit)
                self._written_sink[layer][:, sink_slots].copy_(keys[:, own], non_blocking=True)
                if self._sink_values:
                    self._sink_values[layer][:, sink_slots].copy_(values[:, own], non_blocking=True)

    def put(self, layer: int, slot: int, keys: Tensor, values: Tensor) -> None:
        """Copy keys and values [B, tokens, heads, D] of whole frames into slots, from ``slot`` behind the front on."""
        slots = self._slots(layer, slot, keys.shape[1] // self.shape.frame_tokens)
        for buffer, new in zip(slots, (keys, values), strict=True):
            buffer.copy_(new, non_blocking=True)

    def frames(self, layer: int, slot: int, count: int) -> KeysValues:
        """Keys and values of ``count`` frames from ``slot`` behind the front on, to be read on the device."""
        keys, values = self._slots(layer, slot, count)
        return keys.to(self.shape.device, non_blocking=True), values.to(self.shape.device, non_blocking=True)

    def _slots(self, layer: int, slot: int, count: int) -> KeysValues:
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
            means = self._written_sink[layer][:, into], self._sink_values[layer][:, into]
            with updating(*means, device=shape.device) as (mean_key, mean_value):
                mean_key.lerp_(apply_rope(key.to(SINK_MEAN), turn), 1 - shape.sink_average)
                mean_value.lerp_(value.to(SINK_MEAN), 1 - shape.sink_average)
            if not shape.offload:  # else a layer's sink is made from the means when it is loaded
                seen = slice((front + gone.into) * unit, (front + gone.into + gone.count) * unit)
                self._values[layer][:, seen] = self._sink_values[layer][:, into]
        self._shift = None  # the keys are rotated anew

    def load(self, layer: int, runs: Sequence[tuple[int, int]], keys: Tensor, values: Tensor) -> None:
        """Copy the frames of ``runs`` (slot behind the front, count) into ``keys`` and ``values``, run after run."""
        at = 0
        for slot, count in runs:
            into = slice(at, at + count * self.shape.frame_tokens)
            for seen, slots in zip((keys, values), self._slots(layer, slot, count), strict=True):
                seen[:, into].copy_(slots, non_blocking=True)
            at = into.stop

    def load_parts(self, layer: int, parts: Sequence[tuple[int, int]], lane: Lane) -> None:
        """Copy the frames of ``parts``, which are in another format, from host memory into ``lane``."""

    def load_sink(self, layer: int, frames: int, shift: int, keys: Tensor, values: Tensor) -> None:
        """Copy ``frames`` frames of an offloaded sink that moves to ``keys`` and ``values``, rotated by ``shift``."""
        tokens, shape = slice(0, frames * self.shape.frame_tokens), self.shape
        written = self._written_sink[layer] if self._written_sink else self._keys[layer]
        kept = self._sink_values[layer] if self._sink_values else self._values[layer]
        values[:, tokens].copy_(kept[:, tokens], non_blocking=True)
        here = written[:, tokens].to(shape.device, non_blocking=True)
        keys[:, tokens] = apply_rope(here, frame_rotation(shift, shape.head_dim, shape.device)) if shift else here

    def load_bank(self, layer: int, frames: int, keys: Tensor, values: Tensor) -> None:
        """Copy the first ``frames`` frames of the bank to the end of ``keys`` and ``values``."""
        for bank, seen in zip(self._bank[layer], (keys, values), strict=True):
            tokens = frames * self.shape.frame_tokens
            seen[:, seen.shape[1] - tokens :].copy_(bank[:, :tokens], non_blocking=True)

    def enter_bank(self, layer: int, place: Place, frame: int, keys: Tensor, values: Tensor) -> None:
        """Let the frame with the index ``frame`` of a pass enter the bank, under the prompt of the newest pass."""
        rule, unit = self.shape.bank, self.shape.frame_tokens
        assert rule is not None
        assert self._text is not None
        new = keys[:, frame * unit : (frame + 1) * unit], values[:, frame * unit : (frame + 1) * unit]
        at = rule.place(place.start + frame, place.scene)
        if at is None:
            with updating(*self._bank[layer], device=self.shape.device) as (bank_keys, bank_values):
                keep_best(bank_keys, bank_values, self._text[1][layer][0], new)
        else:
            for bank, newest in zip(self._bank[layer], new, strict=True):
                bank[:, at * unit : (at + 1) * unit].copy_(newest, non_blocking=True)

    def _rotate_sink(self, shift: int) -> None:
        """Rotate the sink by ``shift`` frames, from its keys as written; see `load_sink` for an offloaded one."""
        if shift == self._shift or self.shape.offload:
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

    def _grow(self, frames: int) -> None:
        """Grow the ring to ``frames`` frames."""
        self.storage.finish()
        self._grow_buffers(frames)
        self.storage.trim()
        self._capacity = frames
        if self.lanes:
            self.lanes = []  # free them before the new ones are allocated
            self.lanes = self._own_lanes()

    def _grow_buffers(self, frames: int) -> None:
        grown = self._each_kept(2 * self.shape.layers, self.shape.whole_frames(frames), self.shape.dtype)
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                buffers[layer] = next(grown)
                buffers[layer][:, : old.shape[1]] = old

    def copy_from(self, other: RollingKVCache) -> None:
        """Copy keys and values of ``other``, a cache of the same shape; the prompt's are computed again."""
        other.storage.finish()
        if other._capacity > self._capacity:
            with torch.inference_mode(False):
                self._grow(other._capacity)
        for own, theirs in zip(self._held(), other._held(), strict=True):
            own.copy_(theirs)
        self._shift = other._shift


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
