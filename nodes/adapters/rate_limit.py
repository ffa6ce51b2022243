"""A limit on how often something happens."""

from __future__ import annotations

import time


class RateLimit:
    """A token bucket over wall time: a burst at once, then a number a second."""

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst, self._rate = burst, per_second
        self._available, self._updated = burst, time.perf_counter()

    @property
    def available(self) -> float:
        """Tokens that can be taken now."""
        now = time.perf_counter()
        self._available = min(self._burst, self._available + self._rate * (now - self._updated))
        self._updated = now
        return self._available

    def take(self, count: int) -> None:
        """Use ``count`` tokens."""
        self._available -= count
