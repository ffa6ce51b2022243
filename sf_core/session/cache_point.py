"""Cache points: the place in a session right before a chunk, and what the events there make of the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..hashing import digest, tensor_digest
from ..model.cache_shape import CacheShape
from ..model.pins import Pin
from ..model.place import Place
from .blocks import NOTHING, Block, CacheEpoch, Event, Prompt, Recache


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
        offset: See `Place`; the jump of a shot that begins with the chunk included.
        pin: The chunk that is pinned before this one; see `Place`.
        ring: See `Place`.
    """

    head: Block | None
    epoch: CacheEpoch
    start: int
    event: Event
    prompt: Prompt
    root: bytes
    offset: int = 0
    pin: Pin | None = None
    ring: tuple[int, ...] | None = None

    @property
    def key(self) -> bytes:
        """Digest of everything that the cache depends on, besides the model."""
        past = self.head.lineage if self.head else self.root
        if self.head is not None and self.head.reencoded is not None:
            past = digest(past, tensor_digest(self.head.reencoded.on_cpu()))
        event = replace(self.event, match=False)
        if not event.cut and not event.recache:
            return past  # a shot changes the cache only when its chunk is committed
        return digest(past, bytes([event.code]), self.prompt.digest if event.recache else b"")

    def place(self, frames: int) -> Place:
        """The place of a chunk of ``frames`` at this point."""
        pin = self.pin if self.ring is None or not self.event.shot else (self.start, self.start + frames)
        return Place(self.start, frames, self.epoch.scene, self.epoch.ring_origin, self.offset, pin, self.ring)


def cache_point(
    head: Block | None, event: Event, prompt: Prompt, root: bytes, shape: CacheShape, shot_offset: int = 0
) -> CachePoint:
    """The point after ``head``, with ``event`` applied; positions jump by ``shot_offset`` frames at a shot."""
    if head is None:
        empty: tuple[int, ...] | None = () if shape.pins else None
        return CachePoint(None, CacheEpoch(ring_origin=shape.sink_frames), 0, NOTHING, prompt, root, ring=empty)
    start, epoch = head.place.end, head.epoch
    offset, pin, ring = head.place.offset + shot_offset * event.shot, head.place.pin, shape.ring_after(head.place)
    if event.cut:
        epoch = CacheEpoch(start=start, scene=start, ring_origin=start + shape.sink_frames)
        pin, ring = None, () if shape.pins else None
    elif shape.recomputed:
        epoch = CacheEpoch(start, epoch.scene, max(epoch.scene, start - (shape.ring_frames or 0)))
        event = Event(match=event.match)
    elif event.joint:
        epoch = _after_joint_recache(start, epoch, event, prompt, shape)
    elif event.recache:
        old = Place(start, 0, epoch.scene, epoch.ring_origin)
        oldest = start - shape.history(old)[1]
        first = (
            next((b.place.start for b in head.back() if b.place.start <= oldest), start) if oldest < start else start
        )
        origin = max(first, epoch.scene + shape.sink_frames)
        recache = Recache(first, start, prompt, origin, epoch.scene)
        epoch = CacheEpoch(start, epoch.scene, origin, recache, recache if event.recache_sink else epoch.sink)
    else:
        event = Event(shot=event.shot, match=event.match)
    return CachePoint(head, epoch, start, event, prompt, root, offset, pin, ring)


def _after_joint_recache(start: int, old: CacheEpoch, event: Event, prompt: Prompt, shape: CacheShape) -> CacheEpoch:
    """The epoch that a joint recache before frame ``start`` begins.

    It passes the newest window of frames. Where that is the whole scene, the sink is written again too. Else the sink
    stays and is seen, and as many of the frames as it holds have no place; or it begins anew at the first of them.
    """
    made = start - old.scene
    seen = made if shape.window_frames is None else min(made, shape.window_frames)
    scene, first, origin = old.scene, start - seen, start - seen + shape.sink_frames
    if event.recache_sink:
        scene = first
    elif seen < made:
        first = origin
    recache = Recache(first, start, prompt, origin, scene, joint=True)
    wrote_sink = first == scene
    return CacheEpoch(start, scene, origin, recache, recache if wrote_sink else old.sink)


def point_before(block: Block) -> CachePoint:
    """The point right before ``block``."""
    place = block.place
    facts = (place.offset, place.pin, place.ring)
    return CachePoint(block.parent, block.epoch, place.start, block.event, block.prompt, block.root, *facts)
