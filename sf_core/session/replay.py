"""Replay: the passes that bring a cache to a session's newest chunk.

A *pass* is one forward of a clean block under a prompt; it writes the block's keys and values. This module reads the
session's records and decides which passes a cache needs, and the fewest that rebuild it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..hashing import digest
from ..model.kv_cache import CacheShape, Place
from .blocks import NOTHING, Block, CacheEpoch, Event, Prompt, Recache


@dataclass(frozen=True, eq=False)
class CachePass:
    """One forward that writes a block's keys and values.

    Attributes:
        block: The clean latents.
        place: Their position in the video and in the cache.
        prompt: The prompt that they are passed under.
        keep_sink: Leave the sink as it is.
    """

    block: Block
    place: Place
    prompt: Prompt
    keep_sink: bool = False


@dataclass(frozen=True, eq=False)
class CachePoint:
    """The point right before a chunk: everything that decides what the cache must hold.

    Attributes:
        head: The newest block before the chunk.
        epoch: The cache epoch that the chunk belongs to.
        start: First latent frame of the chunk.
        event: What happens to the cache before the chunk.
        prompt: The prompt of the chunk.
        root: Digest of the settings that the whole session shares.
    """

    head: Block | None
    epoch: CacheEpoch
    start: int
    event: Event
    prompt: Prompt
    root: bytes

    @property
    def key(self) -> bytes:
        """Digest of everything that the cache depends on, besides the model."""
        past = self.head.lineage if self.head else self.root
        if self.event == NOTHING:
            return past
        return digest(past, bytes([self.event.code]), self.prompt.digest if self.event.recache else b"")

    def place(self, frames: int) -> Place:
        """The place of a chunk of ``frames`` at this point."""
        return Place(self.start, frames, self.epoch.scene, self.epoch.ring_origin)


def cache_point(head: Block | None, event: Event, prompt: Prompt, root: bytes, shape: CacheShape) -> CachePoint:
    """The point after ``head``, with ``event`` applied."""
    if head is None:
        return CachePoint(None, CacheEpoch(ring_origin=shape.sink_frames), 0, NOTHING, prompt, root)
    start, epoch = head.place.end, head.epoch
    if event.cut:
        epoch = CacheEpoch(start=start, scene=start, ring_origin=start + shape.sink_frames)
    elif event.recache:
        old = Place(start, 0, epoch.scene, epoch.ring_origin)
        oldest = start - shape.history(old)[1]
        first = (
            next((b.place.start for b in head.back() if b.place.start <= oldest), start) if oldest < start else start
        )
        origin = max(first, epoch.scene + shape.sink_frames)
        recache = Recache(first, start, prompt, origin)
        epoch = CacheEpoch(start, epoch.scene, origin, recache, recache if event.recache_sink else epoch.sink)
    else:
        event = NOTHING
    return CachePoint(head, epoch, start, event, prompt, root)


def point_before(block: Block) -> CachePoint:
    """The point right before ``block``."""
    return CachePoint(block.parent, block.epoch, block.place.start, block.event, block.prompt, block.root)


def last_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The passes from the point before the newest block to ``now``."""
    head = now.head
    if head is None or now.event.cut:
        return []
    commit = _commit(head)
    if not now.event.recache:
        return _worthwhile([commit], shape)
    before = [commit] if not now.event.recache_sink and _in_sink(head, shape) else []
    return _worthwhile(before + _recache_passes(now, shape), shape)


def replay_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The fewest passes that fill an empty cache exactly as it must be at ``now``.

    The keys of a layer depend on one window of the layer below. So a cache depends on the last
    ``layers * ceil(ring / chunk)`` passes and on those that wrote the sink, and on nothing else.
    """
    if now.head is None:
        return []
    limit = _replay_limit(now, shape)
    tail: list[CachePass] = []
    for block in now.head.back():
        if block.place.start < now.epoch.start or (limit is not None and len(tail) >= limit):
            break
        tail.append(_commit(block))
    tail.reverse()
    if now.epoch.recache is not None:
        rewritten = _recache_passes(now, shape)
        spare = len(rewritten) if limit is None else max(0, limit - len(tail))
        tail = rewritten[max(0, len(rewritten) - spare) :] + tail
    written = {p.block.lineage for p in tail if not p.keep_sink}
    sink = [p for p in _sink_passes(now, shape) if p.block.lineage not in written]
    return _worthwhile(sink + tail, shape)


def replay_reach(layers: int, ring_frames: int | None, chunk_frames: int) -> int | None:
    """The number of newest chunks that an exact replay may need, besides those of the sink. None: all chunks."""
    if ring_frames is None:
        return None
    return layers * -(-ring_frames // chunk_frames)


def _replay_limit(now: CachePoint, shape: CacheShape) -> int | None:
    assert now.head is not None
    return replay_reach(shape.layers, shape.ring_frames, now.head.place.frames)


def _commit(block: Block) -> CachePass:
    return CachePass(block, block.place, block.prompt)


def _in_sink(block: Block, shape: CacheShape) -> bool:
    return block.place.start - block.place.scene < shape.sink_frames


def _recache_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The passes of the recache that began the epoch, oldest first."""
    event = now.epoch.recache
    assert event is not None
    assert now.head is not None
    with_sink = event is now.epoch.sink
    again: list[CachePass] = []
    for block in now.head.back():
        if block.place.start < now.epoch.scene or (block.place.start < event.first and not with_sink):
            break
        if block.place.start >= event.end:
            continue
        if block.place.start >= event.first or _in_sink(block, shape):
            again.append(_again(block, event, keep_sink=not with_sink))
    return again[::-1]


def _again(block: Block, event: Recache, keep_sink: bool) -> CachePass:
    place = Place(block.place.start, block.place.frames, block.place.scene, event.ring_origin)
    return CachePass(block, place, event.prompt, keep_sink)


def _sink_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The passes that wrote the sink as it is at ``now``, oldest first."""
    if not shape.sink_frames:
        return []
    assert now.head is not None
    event, passes = now.epoch.sink, []
    for block in now.head.back():
        if block.place.start < now.epoch.scene:
            break
        if _in_sink(block, shape):
            again = event is not None and block.place.start < event.end
            passes.append(_again(block, event, False) if again and event else _commit(block))
    return passes[::-1]


def _worthwhile(passes: list[CachePass], shape: CacheShape) -> list[CachePass]:
    """Drop passes whose keys and values would all be evicted."""
    return [p for p in passes if shape.committed_runs(p.place, p.keep_sink)]
