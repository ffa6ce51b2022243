"""Replay: the passes that bring a cache to a session's newest chunk.

A *pass* is one forward of a clean block under a prompt; it writes the block's keys and values. This module reads the
session's records and decides which passes a cache needs, and the fewest that rebuild it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..model.cache_shape import CacheShape
from ..model.place import Place
from .archive import StoredLatents
from .blocks import Block, Prompt, Recache
from .cache_point import CachePoint, point_before


@dataclass(frozen=True, eq=False)
class CachePass:
    """One forward that writes keys and values: those of a block, or of a joint recache.

    Attributes:
        block: The block; of a joint recache, the newest one.
        place: Position of the frames in the video and in the cache.
        prompt: The prompt that they are passed under.
        keep_sink: Leave the sink as it is.
        first: What stands for the first frame, if that is not the block's own.
        bank_frame: Index of the frame that enters the bank (``memory_frames``). None: none does.
    """

    block: Block
    place: Place
    prompt: Prompt
    keep_sink: bool = False
    first: StoredLatents | None = None
    bank_frame: int | None = None

    @property
    def is_wide(self) -> bool:
        """Whether the pass has other frames than its block, so that the front of the cache may not hold them."""
        return self.place.start != self.block.place.start

    @property
    def is_as_sampled(self) -> bool:
        """Whether it repeats the last step of its block, whose keys and values stay."""
        block = self.block
        return block.noisy is not None and self.place == block.place and self.prompt is block.prompt

    def frames(self) -> tuple[Tensor, list[float]]:
        """The latents [B, C, F, H, W], and the timestep of each frame."""
        parts: list[Tensor] = []
        timesteps: list[float] = []
        for block in self.block.back():
            skipped = max(0, self.place.start - block.place.start)
            parts.append(block.written.get()[:, :, skipped:])
            timesteps[:0] = [block.timestep] * (block.place.frames - skipped)
            if block.place.start <= self.place.start:
                break
        if self.first is not None:
            parts[-1] = torch.cat([self.first.get()[:, :, :1], parts[-1][:, :, 1:]], dim=2)
        return parts[0] if len(parts) == 1 else torch.cat(parts[::-1], dim=2), timesteps


def last_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The passes from the point before the newest block to ``now``."""
    head = now.head
    if head is None or now.event.cut:
        return []
    if shape.recomputed:
        return _context_passes(now, shape)
    passes = [_commit(head)]
    if now.event.recache:
        rewritten = now.event.recache_sink or now.event.joint
        before = passes if not rewritten and _in_sink(head, shape, now.epoch.scene) else []
        passes = before + _recache_passes(now, shape)
    if shape.bank is not None:
        passes = _with_bank(head, passes)
    return _worthwhile(passes, shape)


def _with_bank(head: Block, passes: list[CachePass]) -> list[CachePass]:
    """The passes of which one lets the first frame of the newest block enter the bank.

    A recache of a window without a ring does not pass that block again: then its own pass comes first.
    """
    first = head.place.start
    if not passes or not passes[-1].place.start <= first < passes[-1].place.end:
        passes = [_commit(head), *passes]
        return [replace(passes[0], bank_frame=0), *passes[1:]]
    return [*passes[:-1], replace(passes[-1], bank_frame=first - passes[-1].place.start)]


def replay_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The fewest passes that fill an empty cache exactly as it must be at ``now``.

    The keys of a layer depend on one window of the layer below. So a cache depends on the last
    ``layers * ceil(ring / chunk)`` passes and on those that wrote the sink, and on nothing else. An averaged sink
    depends on all passes of the scene.
    """
    if now.head is None:
        return []
    if shape.recomputed:
        return last_passes(now, shape)
    if shape.follows_all:
        return _all_passes(now, shape)
    if now.ring is not None:
        return _worthwhile(_passes_in_sight(now, now.head, shape), shape)
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
    written = {(p.block.lineage, p.place.start) for p in tail if not p.keep_sink}
    sink = [p for p in _sink_passes(now, shape) if (p.block.lineage, p.place.start) not in written]
    return _worthwhile(sink + tail, shape)


def _all_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """All passes of the scene, in the order in which a cache that was never lost took them."""
    points, point = list[CachePoint](), now
    while point.head is not None and not point.event.cut:
        points.append(point)
        point = point_before(point.head)
    return [p for point in reversed(points) for p in last_passes(point, shape)]


def replaced_frame(now: CachePoint, shape: CacheShape) -> str:
    """What stands for the first frame of a recomputed context: ``"own"``, ``"first"`` or ``"reencoded"``.

    It is the video's first frame until the sampled chunks before the newest one fill the context, as in Krea's code,
    unless more was given than the context holds; from then on, an encoding of its own last picture.
    """
    context = shape.ring_frames or 0
    if not shape.recomputed or now.head is None or now.start - now.epoch.scene <= context:
        return "own"
    chunks = 0 if now.head.chunk is None else now.head.chunk + 1
    sampled = chunks * now.head.place.frames
    given = now.start - sampled
    return "first" if given <= context and sampled - now.head.place.frames < context else "reencoded"


def _context_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The passes over the newest frames that write a recomputed context, under the prompt of the newest block."""
    assert now.head is not None
    origin, passes, kind = now.epoch.ring_origin, list[CachePass](), replaced_frame(now, shape)
    for block in now.head.back():
        if block.place.start < origin:
            break
        place = Place(block.place.start, block.place.frames, now.epoch.scene, origin)
        first = None
        if block.place.start == origin and kind == "reencoded":
            first = now.head.reencoded
        elif block.place.start == origin and kind == "first":
            first = next(b for b in block.back() if b.place.start == now.epoch.scene).latents
        passes.append(CachePass(block, place, now.head.prompt, first=first))
    return passes[::-1]


def replay_reach(layers: int, ring_frames: int | None, chunk_frames: int) -> int | None:
    """The number of newest chunks that an exact replay may need, besides those of the sink. None: all chunks."""
    if ring_frames is None:
        return None
    return layers * -(-ring_frames // chunk_frames)


def _replay_limit(now: CachePoint, shape: CacheShape) -> int | None:
    assert now.head is not None
    return replay_reach(shape.layers, shape.ring_frames, now.head.place.frames)


def _passes_in_sight(now: CachePoint, head: Block, shape: CacheShape) -> list[CachePass]:
    """The passes that a cache with a pinned shot depends on, oldest first.

    The keys of a block's layer depend on the layer below of every block that its pass saw: a pinned chunk is seen long
    after its neighbours have gone. So each block has a depth, the highest layer that something newer needs, and those
    that nothing needs are left out. With every shot one layer is lost: no replay goes back more shots than layers.
    """
    depth: dict[int, int] = {}  # by latent frame

    def see(place: Place, layer: int) -> None:
        sink = range(place.scene, place.scene + shape.history(place)[0])
        for frame in (*sink, *(place.ring or ())):
            depth[frame] = max(depth.get(frame, layer), layer)

    see(now.place(1), shape.layers - 1)
    passes = []
    for block in head.back():
        place = block.place
        if place.start < now.epoch.scene:
            break
        layer = max(depth.get(frame, -1) for frame in range(place.start, place.end))
        if layer >= 0:
            passes.append(_commit(block))
        if layer > 0:
            see(place, layer - 1)
    return passes[::-1]


def _commit(block: Block) -> CachePass:
    return CachePass(block, block.place, block.prompt)


def _in_sink(block: Block, shape: CacheShape, scene: int) -> bool:
    return block.place.start - scene < shape.sink_frames


def _recache_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The passes of the recache that began the epoch, oldest first."""
    event = now.epoch.recache
    assert event is not None
    assert now.head is not None
    with_sink = event is now.epoch.sink
    if event.joint:
        return [_joint_pass(now.head, event, keep_sink=not with_sink)]
    again: list[CachePass] = []
    for block in now.head.back():
        if block.place.start < now.epoch.scene or (block.place.start < event.first and not with_sink):
            break
        if block.place.start >= event.end:
            continue
        if block.place.start >= event.first or _in_sink(block, shape, event.scene):
            again.append(_again(block, event, keep_sink=not with_sink))
    return again[::-1]


def _again(block: Block, event: Recache, keep_sink: bool) -> CachePass:
    place = Place(block.place.start, block.place.frames, event.scene, event.ring_origin)
    return CachePass(block, place, event.prompt, keep_sink)


def _joint_pass(head: Block, event: Recache, keep_sink: bool) -> CachePass:
    newest = next(block for block in head.back() if block.place.end == event.end)
    place = Place(event.first, event.end - event.first, event.scene, event.ring_origin)
    return CachePass(newest, place, event.prompt, keep_sink)


def _sink_passes(now: CachePoint, shape: CacheShape) -> list[CachePass]:
    """The passes that wrote the sink as it is at ``now``, oldest first."""
    if not shape.sink_frames:
        return []
    assert now.head is not None
    event, passes = now.epoch.sink, []
    for block in now.head.back():
        if block.place.start < now.epoch.scene:
            break
        again = event is not None and block.place.start < event.end
        if again and event and event.joint:
            passes.append(_joint_pass(block, event, keep_sink=False))
            break
        if _in_sink(block, shape, now.epoch.scene):
            passes.append(_again(block, event, False) if again and event else _commit(block))
    return passes[::-1]


def _worthwhile(passes: list[CachePass], shape: CacheShape) -> list[CachePass]:
    """Drop passes whose keys and values would all be evicted, and not even be averaged."""
    return [p for p in passes if shape.committed_runs(p.place, p.keep_sink) or shape.follows_all]
