"""The ring of a session whose newest shot is pinned: which latent frame is in which slot (LongLive 2.0).

Without pins a frame's slot is a function of its index alone. A pinned chunk stays when its turn to be overwritten
comes, and the frames behind it go instead, so here the contents of the ring are computed from chunk to chunk. They are
a function of the record, like everything about a cache: whoever rebuilds it arrives at the same slots.
"""

from __future__ import annotations

from collections.abc import Sequence

Pin = tuple[int, int]  # first latent frame of a pinned chunk, and the one after its last


def ring_after(ring: Sequence[int], new: Sequence[int], pin: Pin | None, slots: int) -> tuple[int, ...]:
    """The ring after a chunk is committed: the pinned frames, and the newest others that fit beside them.

    Args:
        ring: The frame in each slot that is filled.
        new: The frames of the chunk that belong into the ring, rising.
        pin: The chunk that stays.
        slots: Slots of the ring.

    Returns:
        The frame in each slot that is filled. New frames take empty slots first, then those of the oldest frames.
    """
    known = sorted({*ring, *new})
    stay = {frame for frame in known if pin is not None and pin[0] <= frame < pin[1]}
    others = [frame for frame in known if frame not in stay]
    stay.update(others[max(0, len(others) - (slots - len(stay))) :])
    coming = [frame for frame in new if frame in stay]
    leaving = sorted(frame for frame in ring if frame not in stay)
    after = [*ring, *coming[: slots - len(ring)]]
    for frame, old in zip(coming[slots - len(ring) :], leaving, strict=False):
        after[ring.index(old)] = frame
    return tuple(after)
