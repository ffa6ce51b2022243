"""The drift of a video, as a curve."""

from __future__ import annotations

from .drift import ChunkDrift


class DriftCurve:
    """The drift of a video's chunks, for a plot of at most ``most`` points: each is the largest of some chunks."""

    def __init__(self, most: int = 120) -> None:
        self._most, self._stride = most, 1
        self._largest: dict[int, float] = {}  # by the number of the point

    def add(self, measured: ChunkDrift) -> None:
        """Add a chunk; one that was added before is measured anew."""
        place = measured.chunk // self._stride
        self._largest[place] = max(measured.drift, self._largest.get(place, 0.0) if self._stride > 1 else 0.0)
        if len(self._largest) > self._most:
            self._stride *= 2
            merged: dict[int, float] = {}
            for number, drift in self._largest.items():
                merged[number // 2] = max(drift, merged.get(number // 2, 0.0))
            self._largest = merged

    def withdraw(self, chunk: int) -> None:
        """Forget the chunks from ``chunk`` on, as far as a point holds none before it."""
        self._largest = {place: drift for place, drift in self._largest.items() if place * self._stride < chunk}

    @property
    def points(self) -> list[tuple[int, float]]:
        """(First chunk, largest drift) of each point, in their order."""
        return [(place * self._stride, drift) for place, drift in sorted(self._largest.items())]
