"""What is done between two chunks about a video that drifts."""

from __future__ import annotations

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
        newest: The newest chunk's measures. None: none was sampled.
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
        self._measured: Block | None = None
        self._rests_until = 0  # first latent frame at which a recache may be repeated

    @property
    def is_over(self) -> bool:
        """Whether the newest chunk's drift is over the threshold."""
        return self.newest is not None and self.newest.drift > self.threshold

    def measure(self, session: SessionRecord) -> None:
        """Measure the newest chunk, unless that is done."""
        head = session.head
        if head is not None and head.chunk is not None and head is not self._measured:
            self.newest, self._measured = self._meter.measure(head), head

    def boundary(self, session: Session) -> Session:
        """Measure the newest chunk, and return the session from which the next one is to be made."""
        head = session.head
        if head is None or head.chunk is None:
            self.newest = None
            return session
        self.measure(session)
        is_young = begins_stretch(session.event, session.prompt, head) or not self._meter.has_whole_anchor
        if not self.is_over or is_young:
            return session
        if self.action == "match":
            return session.with_match()
        if self.action == "recache" and not session.event.recache and session.frames >= self._rests_until:
            # until then the window holds frames that the last recache passed
            self._rests_until = session.frames + (session.config.window_frames or session.frames)
            return session.with_prompt(session.prompt.text, recache=True, words=session.prompt.words)
        return session


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
