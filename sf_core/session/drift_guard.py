"""What is done between two chunks about a video that drifts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor

from ..config import RolloutConfig
from .blocks import Block
from .checks import check_recache
from .drift import THRESHOLD, ChunkDrift, DriftMeter, begins_stretch, check_match_settings
from .drift_curve import DriftCurve
from .next_chunk import Progress
from .record import SessionRecord
from .session import Session
from .stream_host import StreamHost

# measure: nothing. warn: whoever asks `DriftGuard.is_over` says it. recache: pass the window again under the prompt.
# match: give the next chunk mean and spread of the first chunks, see `Session.with_match`.
DriftAction = Literal["measure", "warn", "recache", "match"]


class DriftGuard:
    """Measures each chunk of a video, and acts before the next one when the drift is over a threshold.

    It decides by latents alone: the same video, made again, is acted upon in the same places.

    Attributes:
        action: What is done.
        threshold: The drift above which it is done; 0: before every chunk.
        newest: The newest chunk's measures. None: none was sampled, or they are no numbers.
        acted: Whether the chunk after it is made otherwise because of it.
    """

    def __init__(self, config: RolloutConfig, action: DriftAction = "measure", threshold: float = THRESHOLD) -> None:
        """Make a guard for a session with these settings.

        Raises:
            ValueError: An unknown action, a negative threshold, or an action for which the settings have no room.
        """
        if action not in get_args(DriftAction):
            raise ValueError(f"the action on drift is {action!r}; expected one of {', '.join(get_args(DriftAction))}")
        if not threshold >= 0:
            raise ValueError(f"the threshold of drift is {threshold}; expected 0 or more")
        if action == "match":
            check_match_settings(config)
        if action == "recache":
            check_recache(config, True, False)
        self.action, self.threshold = action, threshold
        self.newest: ChunkDrift | None = None
        self._meter = DriftMeter()
        self.acted = False
        self._measured: Block | None = None

    @property
    def is_over(self) -> bool:
        """Whether the newest chunk's drift is over the threshold."""
        return self.newest is not None and self.newest.drift > self.threshold

    def measure(self, session: SessionRecord) -> None:
        """Measure the newest chunk, unless that is done."""
        head = session.head
        if head is not None and head.chunk is not None and head is not self._measured:
            measured, self._measured = self._meter.measure(head), head
            # latents too large to be squared give no number; neither a threshold nor JSON knows what to do with that
            self.newest = measured if math.isfinite(measured.drift) else None

    def boundary(self, session: Session) -> Session:
        """Measure the newest chunk, and return the session from which the next one is to be made."""
        self.acted = False
        if session.head is None or session.head.chunk is None:
            self.newest = None
            return session
        self.measure(session)
        is_young = begins_stretch(session.event, session.prompt, session.head) or not self._meter.has_whole_anchor
        if not self.is_over or is_young:
            return session
        if self.action == "match":
            self.acted = True
            return session.with_match()
        if self.action == "recache" and not _was_recached(session):
            self.acted = True
            # not with_prompt: each recache of a long video would keep embeddings of its own
            return replace(session, event=replace(session.event, recache=True))
        return session


def _was_recached(session: Session) -> bool:
    """Whether the window holds frames that a recache has passed, or one is set for the next chunk.

    It is asked of the record, so a video that is continued or rewound goes on as it would have.
    """
    newest = None if session.head is None else session.head.epoch.recache
    if session.event.recache or newest is None:
        return session.event.recache
    return session.frames < newest.end + (session.config.window_frames or newest.end)


class GuardedHost(StreamHost):
    """A stream's host that has a `DriftGuard`.

    Attributes:
        guard: The guard.
        curve: The drift so far.
    """

    def __init__(self, guard: DriftGuard) -> None:
        super().__init__()
        self.guard, self.curve = guard, DriftCurve()

    def boundary(self, session: Session) -> Session:
        """Act upon the newest chunk."""
        return self.guard.boundary(session)

    def make(self, session: Session, progress: Progress) -> tuple[Session, Tensor]:
        """Make the next chunk, and measure it."""
        longer, latents = super().make(session, progress)
        self.guard.measure(longer)
        if self.guard.newest is not None:
            self.curve.add(self.guard.newest)
        return longer, latents

    def withdrawn(self, session: Session) -> None:
        """Forget what a re-roll withdraws."""
        self.curve.withdraw(session.chunks)
