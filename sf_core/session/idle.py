"""A pause of streams that nobody watches."""

from __future__ import annotations

import time
from collections.abc import Callable

UNWATCHED_SECONDS = 600.0  # after which an endless stream pauses


class IdlePause:
    """Decides when an endless stream waits: nobody has watched it for `UNWATCHED_SECONDS`.

    Args:
        watched: Whether anybody watches now.
        changed: Told when the pause begins (True) and ends (False).
        clock: Seconds.
    """

    def __init__(
        self, watched: Callable[[], bool], changed: Callable[[bool], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._watched, self._changed, self._clock = watched, changed, clock
        self._seen, self._paused = clock(), False

    def must_wait(self) -> bool:
        """Whether the stream has to wait now. To be asked between chunks, and again and again during a pause."""
        now = self._clock()
        if self._watched():
            self._seen = now
        paused = now - self._seen >= UNWATCHED_SECONDS
        if paused != self._paused:
            self._paused = paused
            self._changed(paused)
        return paused
