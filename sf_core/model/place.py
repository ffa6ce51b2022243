"""Where a pass is in the video, what it attends to, and what leaves the window for it."""

from __future__ import annotations

from dataclasses import dataclass

from .pins import Pin


@dataclass(frozen=True, slots=True)
class Place:
    """Position of a pass in the video, in absolute latent frames.

    Attributes:
        start: First frame of the pass.
        frames: Number of frames.
        scene: First frame of the scene: 0, or the newest cut. The first frames of a scene are the sink.
        ring_origin: Frame f is in slot (f - ring_origin) % ring_frames of the ring. Older frames are not in the ring.
        offset: Added to the frames' own positions, for attention: shots jump by it.
        pin: The chunk of the newest shot, which stays in the ring.
        ring: Where shots are pinned: the frame in each slot of the ring before the pass, see pins.py.
    """

    start: int
    frames: int
    scene: int
    ring_origin: int
    offset: int = 0
    pin: Pin | None = None
    ring: tuple[int, ...] | None = None

    @property
    def positions(self) -> range:
        """The frames' positions for attention."""
        return range(self.start + self.offset, self.end + self.offset)

    @property
    def end(self) -> int:
        """The frame after the last one."""
        return self.start + self.frames


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass attends to besides its own frames: sink (turned by ``shift``), newest ring, and bank frames."""

    sink: int
    ring: int
    shift: int
    bank: int = 0


@dataclass(frozen=True, slots=True)
class Leaving:
    """Frames that leave the ring, one after another, and are averaged into the sink.

    Attributes:
        index: Index, within the pass that takes their place, of the frame that takes the first one's.
        slot: Slot of the first behind the front; -1: there is no ring, and they are frames of the pass.
        into: Frame of the sink that the first is averaged into.
        turn: Frames from their positions to those of the sink.
        count: Number of frames.
    """

    index: int
    slot: int
    into: int
    turn: int
    count: int
