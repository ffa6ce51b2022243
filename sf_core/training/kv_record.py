"""The KV cache of a training rollout, which the backward pass still reads.

A rolling cache overwrites its oldest frames. The backward pass, and a recomputation by gradient checkpointing, would
then read other keys and values than the forward pass did. So a training rollout stores each chunk's keys and values in
separate tensors that are never written to again. `CacheShape` decides which of them a chunk attends to, as in
`RollingKVCache`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..model.cache_shape import CacheShape
from ..model.layer_view import KeysValues
from ..model.place import Place
from ..model.rope import apply_rope, frame_rotation

Pieces = tuple[list[Tensor], list[Tensor]]  # keys and values of one layer, each a list of [B, tokens, heads, D]


@dataclass(frozen=True)
class _Chunk:
    start: int  # frame
    end: int
    layers: list[KeysValues]


class KVRecord:
    """Keys and values of the finished chunks of one rollout.

    A chunk that left the window is dropped; autograd holds a reference to it while a gradient needs it.
    """

    def __init__(self, shape: CacheShape) -> None:
        self._shape = shape
        self._chunks: list[_Chunk] = []

    def past(self, place: Place) -> list[Pieces]:
        """Return the earlier keys and values, per layer, that a pass at ``place`` attends to."""
        shape = self._shape
        sink, ring = shape.history(place)
        pasts: list[Pieces] = [([], []) for _ in range(shape.layers)]
        for first, last, shift in (
            (place.scene, place.scene + sink, shape.sink_shift(place)),
            (place.start - ring, place.start, 0),
        ):
            rotation = frame_rotation(shift, shape.head_dim, shape.device) if shift else None
            for chunk in self._chunks:
                span = slice(max(first, chunk.start) - chunk.start, min(last, chunk.end) - chunk.start)
                if span.start >= span.stop:
                    continue
                tokens = slice(span.start * shape.frame_tokens, span.stop * shape.frame_tokens)
                for (keys, values), (k, v) in zip(pasts, chunk.layers, strict=True):
                    keys.append(k[:, tokens] if rotation is None else apply_rope(k[:, tokens], rotation))
                    values.append(v[:, tokens])
        return pasts

    def commit(self, place: Place, layers: list[KeysValues]) -> None:
        """Store the keys and values, per layer, of the finished chunk at ``place``."""
        self._chunks.append(_Chunk(place.start, place.end, layers))
        ring, sink_end = self._shape.ring_frames, place.scene + self._shape.sink_frames
        if ring is not None:
            self._chunks = [c for c in self._chunks if c.start < sink_end or c.end > place.end - ring]
