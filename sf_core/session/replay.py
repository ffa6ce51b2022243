"""Which passes fill a cache.

A cache is filled by *passes*: one forward of a clean block each, under some prompt. Which passes a session's past
needs, and the fewest that rebuild its cache exactly, is decided here from the records alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..hashing import digest
from ..model.kv_cache import CacheShape, Place
from .blocks import NOTHING, Block, Era, Event, Prompt, Recache


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward that writes a block's keys and values."""

    block: Block
    place: Place
    prompt: Prompt
    keep_sink: bool = False


@dataclass(frozen=True, eq=False)
class Moment:
    """Right before a chunk: everything that decides what the cache must hold for it."""

    head: Block | None
    era: Era
    start: int  # the chunk's first frame
    event: Event
    prompt: Prompt  # the chunk's
    root: bytes

    @property
    def key(self) -> bytes:
        past = self.head.lineage if self.head else self.root
        if self.event == NOTHING:
            return past
        return digest(past, bytes([self.event.code]), self.prompt.digest if self.event.recache else b"")

    def place(self, frames: int) -> Place:
        return Place(self.start, frames, self.era.scene, self.era.ring_origin)


def moment(head: Block | None, event: Event, prompt: Prompt, root: bytes, shape: CacheShape) -> Moment:
    """The moment after ``head``, once ``event`` has been taken into account."""
    if head is None:
        return Moment(None, Era(ring_origin=shape.sink_frames), 0, NOTHING, prompt, root)
    start, era = head.place.end, head.era
    if event.cut:
        era = Era(start=start, scene=start, ring_origin=start + shape.sink_frames)
    elif event.recache:
        old = Place(start, 0, era.scene, era.ring_origin)
        oldest = start - shape.history(old)[1]
        first = (
            next((b.place.start for b in head.back() if b.place.start <= oldest), start) if oldest < start else start
        )
        origin = max(first, era.scene + shape.sink_frames)
        recache = Recache(first, start, prompt, origin)
        era = Era(start, era.scene, origin, recache, recache if event.recache_sink else era.sink)
    else:
        event = NOTHING
    return Moment(head, era, start, event, prompt, root)


def moment_before(block: Block) -> Moment:
    """The moment at which ``block`` was about to be made."""
    return Moment(block.parent, block.era, block.place.start, block.event, block.prompt, block.root)


def last_passes(now: Moment, shape: CacheShape) -> list[Pass]:
    """The passes between the chunk before ``now`` and ``now``, given a cache that was ready for that chunk."""
    head = now.head
    if head is None or now.event.cut:
        return []
    commit = _commit(head)
    if not now.event.recache:
        return _worthwhile([commit], shape)
    before = [commit] if not now.event.recache_sink and _in_sink(head, shape) else []
    return _worthwhile(before + _recache_passes(now, shape), shape)


def replay_passes(now: Moment, shape: CacheShape) -> list[Pass]:
    """The fewest passes that make an empty cache ready for ``now``, exactly.

    A layer's keys see one window of the layer below, so all that an unrolled cache can depend on are the last
    ``layers * ceil(ring / chunk)`` passes, and those that wrote the sink.
    """
    if now.head is None:
        return []
    limit = _replay_limit(now, shape)
    tail: list[Pass] = []
    for block in now.head.back():
        if block.place.start < now.era.start or (limit is not None and len(tail) >= limit):
            break
        tail.append(_commit(block))
    tail.reverse()
    if now.era.recache is not None:
        rewritten = _recache_passes(now, shape)
        spare = len(rewritten) if limit is None else max(0, limit - len(tail))
        tail = rewritten[max(0, len(rewritten) - spare) :] + tail
    written = {p.block.lineage for p in tail if not p.keep_sink}
    sink = [p for p in _sink_passes(now, shape) if p.block.lineage not in written]
    return _worthwhile(sink + tail, shape)


def replay_reach(layers: int, ring_frames: int | None, chunk_frames: int) -> int | None:
    """How many of the newest chunks an exact rebuild may need, the sink's aside; None: all of them."""
    if ring_frames is None:
        return None
    return layers * -(-ring_frames // chunk_frames)


def _replay_limit(now: Moment, shape: CacheShape) -> int | None:
    assert now.head is not None
    return replay_reach(shape.layers, shape.ring_frames, now.head.place.frames)


def _commit(block: Block) -> Pass:
    return Pass(block, block.place, block.prompt)


def _in_sink(block: Block, shape: CacheShape) -> bool:
    return block.place.start - block.place.scene < shape.sink_frames


def _recache_passes(now: Moment, shape: CacheShape) -> list[Pass]:
    """The passes of the recache that began the era of ``now``, oldest first."""
    event = now.era.recache
    assert event is not None
    assert now.head is not None
    with_sink = event is now.era.sink
    again: list[Pass] = []
    for block in now.head.back():
        if block.place.start < now.era.scene or (block.place.start < event.first and not with_sink):
            break
        if block.place.start >= event.end:
            continue
        if block.place.start >= event.first or _in_sink(block, shape):
            again.append(_again(block, event, keep_sink=not with_sink))
    return again[::-1]


def _again(block: Block, event: Recache, keep_sink: bool) -> Pass:
    place = Place(block.place.start, block.place.frames, block.place.scene, event.ring_origin)
    return Pass(block, place, event.prompt, keep_sink)


def _sink_passes(now: Moment, shape: CacheShape) -> list[Pass]:
    """The passes that wrote what the sink holds at ``now``, oldest first."""
    if not shape.sink_frames:
        return []
    assert now.head is not None
    event, passes = now.era.sink, []
    for block in now.head.back():
        if block.place.start < now.era.scene:
            break
        if _in_sink(block, shape):
            again = event is not None and block.place.start < event.end
            passes.append(_again(block, event, False) if again and event else _commit(block))
    return passes[::-1]


def _worthwhile(passes: list[Pass], shape: CacheShape) -> list[Pass]:
    """Without passes of which the cache would keep nothing."""
    return [p for p in passes if shape.kept(p.place, p.keep_sink)]
