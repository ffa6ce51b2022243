"""What passes of a rolling schedule see of the cache, in latent frames. Source: Rolling Forcing's inference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RollingSight:
    """The two kinds of passes: one over all chunks in flight, and one that writes a finished chunk.

    Attributes:
        window: Frames that attention sees in all.
        chunk: Frames of a chunk.
        sink: Frames of the sink.
    """

    window: int
    chunk: int
    sink: int

    def in_flight(self, frames: int, sink: int, ring: int) -> tuple[int, int]:
        """Sink frames and newest ring frames that ``frames`` in flight see, of ``sink`` and ``ring`` that there are.

        The sink, and as many whole chunks before the frames as fit between it and them.
        """
        room = max(0, self.window - frames - self.sink) // self.chunk * self.chunk
        return sink, min(ring, room)

    def of_write(self, frames: int, sink: int, ring: int) -> tuple[int, int]:
        """The same for a pass that writes ``frames``: the newest ones, and the sink only while all fit together."""
        ring = min(ring, max(0, self.window - frames))
        return sink if sink + ring + frames <= self.window else 0, ring
