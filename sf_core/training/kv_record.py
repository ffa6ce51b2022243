"""The past of a rollout whose gradient is taken later.

A rolling cache overwrites its oldest frames. Backward, and a recomputation by gradient checkpointing, would then read
another past than the forward pass did. So a rollout for training keeps each chunk's keys and values in tensors of their
own, which nobody writes to again. Which of them a chunk sees is decided as in `RollingKVCache`, by `CacheShape`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..model.kv_cache import CacheShape, KeysValues, Place
from ..model.rope import apply_rope, rope_rotations

Pieces = tuple[list[Tensor], list[Tensor]]  # keys and values of one layer, [B, tokens, heads, D] each, in pieces


@dataclass(frozen=True)
class _Chunk:
    start: int  # frame
    end: int
    layers: list[KeysValues]


class KVRecord:
    """Keys and values of the finished chunks of one rollout. A chunk that left the window is let go of; a gradient
    that still needs it holds it by itself."""

    def __init__(self, shape: CacheShape) -> None:
        self._shape = shape
        self._chunks: list[_Chunk] = []

    def past(self, place: Place) -> list[Pieces]:
        """What each layer of a pass at ``place`` sees besides its own chunk."""
        shape = self._shape
        sink, ring = shape.history(place)
        pasts: list[Pieces] = [([], []) for _ in range(shape.layers)]
        for first, last, shift in (
            (place.scene, place.scene + sink, shape.sink_shift(place)),
            (place.start - ring, place.start, 0),
        ):
            rotation = rope_rotations([shift], 1, 1, shape.head_dim, shape.device) if shift else None
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
        """The chunk at ``place`` is finished: its keys and values, of every layer."""
        self._chunks.append(_Chunk(place.start, place.end, layers))
        ring, sink_end = self._shape.ring_frames, place.scene + self._shape.sink_frames
        if ring is not None:
            self._chunks = [c for c in self._chunks if c.start < sink_end or c.end > place.end - ring]
