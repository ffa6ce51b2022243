"""Views for passes that go layer by layer: those that the front of a cache does not hold, and all of an offloaded one.

A *lane* is device memory for what one layer attends to. A cache on the device has one that all layers share; one in
host memory has two, so that the next layer is copied while one is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .cache_storage import Lane
from .kv_cache import RollingKVCache
from .layer_view import LayerView
from .place import Leaving, Place, Seen


class WideViews(Sequence[LayerView]):
    """Views that are made layer by layer, in lanes that all layers share.

    What a layer attends to is copied behind the pass's own frames, and its new keys and values are stored when the next
    layer is asked for, or by `close`. So a pass takes the memory of its lanes, and its layers have to be asked for in
    turn.

    Args:
        cache: The cache, whose sink is at the position that the pass sees, or is offloaded.
        place: The place of the pass.
        seen: What it attends to.
        runs: What is stored, see `CacheShape.committed_runs`. None: nothing, and the pass is repeated.
        leaving: What is averaged into the sink before that, see `RollingKVCache.store`.
        bank_frame: Index of the frame of the pass that enters the bank. None: none does.
    """

    def __init__(
        self,
        cache: RollingKVCache,
        place: Place,
        seen: Seen,
        runs: Sequence[tuple[int, int, int]] | None = None,
        leaving: Sequence[tuple[Leaving, Tensor]] = (),
        bank_frame: int | None = None,
    ) -> None:
        self._cache, self._place, self._seen = cache, place, seen
        self._runs, self._leaving, self._bank_frame = runs, leaving, bank_frame
        shape = cache.shape
        self._moving_sink = seen.sink if shape.rotates_when_loaded else 0
        self._whole, self._parts = cache.whole_runs(shape.past_runs(place, seen, self._moving_sink))
        frames = place.frames + self._moving_sink + sum(count for _, count in self._whole) + seen.bank
        self._own, self._tokens = (count * shape.frame_tokens for count in (place.frames, frames))
        self._lanes = cache.lanes
        if not self._lanes or self._lanes[0].keys.shape[1] < self._tokens:
            with torch.inference_mode(False):
                self._lanes = cache.new_lanes(frames)
        self._layer: int | None = None  # whose keys and values are in the first lane
        self._ahead: tuple[int, torch.cuda.Event | None] | None = None  # the layer in the second lane, and when it is

    def __len__(self) -> int:
        return self._cache.shape.layers

    def __getitem__(self, layer: Any) -> Any:
        self.close()
        if len(self._lanes) > 1:
            self._lanes = self._lanes[::-1]
        fetched = self._ahead or (None, None)
        if fetched[0] != layer:
            fetched = layer, self._fetch(layer, self._lanes[0])
        self._layer, self._ahead = layer, None
        following = layer + 1 if self._runs is not None else (layer + 1) % len(self)
        if len(self._lanes) > 1 and following < len(self):
            self._ahead = following, self._fetch(following, self._lanes[1])
        self._cache.storage.wait_for(fetched[1])
        lane = self._lanes[0]
        keys, values = (buffer[:, : self._tokens] for buffer in (lane.keys, lane.values))
        return self._cache.view(layer, keys, values, self._parts, lane)

    def _fetch(self, layer: int, lane: Lane) -> torch.cuda.Event | None:
        """Copy what ``layer`` attends to into ``lane``, and return when that is done."""
        cache, sink = self._cache, self._moving_sink
        keys, values = (buffer[:, self._own : self._tokens] for buffer in (lane.keys, lane.values))
        behind = sink * cache.shape.frame_tokens
        with cache.storage.beside_the_pass():
            if sink:
                cache.load_sink(layer, sink, self._seen.shift, keys, values)
            cache.load(layer, self._whole, keys[:, behind:], values[:, behind:])
            cache.load_parts(layer, self._parts, lane)
            if self._seen.bank:
                cache.load_bank(layer, self._seen.bank, keys, values)
            return cache.storage.mark()

    def close(self) -> None:
        """Store the keys and values of the newest layer."""
        if self._layer is not None and self._runs is not None:
            lane = self._lanes[0]
            new = lane.keys[:, : self._own], lane.values[:, : self._own]
            with self._cache.storage.beside_the_pass():
                self._cache.store(self._layer, *new, self._runs, self._leaving)
                if self._bank_frame is not None:
                    self._cache.enter_bank(self._layer, self._place, self._bank_frame, *new)
        self._layer = None


def open_wide(
    cache: RollingKVCache,
    place: Place,
    keep_sink: bool = False,
    bank_frame: int | None = None,
    joint: bool = False,
) -> WideViews:
    """Views for a pass at ``place`` that may have more frames than the front, and that stores what it writes.

    Args:
        cache: The cache.
        place: The place.
        keep_sink: Leave the sink as it is.
        bank_frame: Index of the frame of the pass that also enters the bank. None: none does.
        joint: The pass is over chunks that were passed before: nothing leaves the window for it.
    """
    seen = cache.shape.seen(place)
    cache.make_ready(place, seen.shift)
    leaving = [] if joint else cache.leaving(place)
    return WideViews(cache, place, seen, cache.shape.committed_runs(place, keep_sink), leaving, bank_frame)


def open_in_flight(cache: RollingKVCache, place: Place) -> WideViews:
    """Views for passes at ``place`` over noisy chunks, of which nothing is stored."""
    seen = cache.shape.seen(place, in_flight=True)
    cache.make_ready(place, seen.shift)
    return WideViews(cache, place, seen)
