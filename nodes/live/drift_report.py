"""The drift of a run: what is done about it, and what its viewers see of it."""

from __future__ import annotations

from dataclasses import asdict, replace

from torch import Tensor

from ...sf_core.message import NOTHING, Message
from ...sf_core.session.drift import saturation_of
from ...sf_core.session.drift_curve import DriftCurve
from ...sf_core.session.drift_guard import DriftGuard
from ...sf_core.session.record import SessionRecord
from ...sf_core.session.session import Session
from .view import LiveView


class DriftReport:
    """The drift guard of a run, with what it says."""

    def __init__(self, guard: DriftGuard, view: LiveView) -> None:
        self._guard, self._view = guard, view
        self._curve = DriftCurve()
        self._saturation: float | None = None
        self._said = NOTHING  # of the drift, while it is over the threshold

    @property
    def points(self) -> list[tuple[int, float]]:
        """(Chunk, drift) of the run so far; of a long one, the largest of several chunks."""
        return [(chunk, round(drift, 3)) for chunk, drift in self._curve.points]

    def boundary(self, session: Session) -> Session:
        """Act upon the newest chunk, and say so."""
        session = self._guard.boundary(session)
        guard = self._guard
        over = guard.is_over and guard.threshold > 0
        if over and (guard.acted or (guard.action == "warn" and not self._said)):
            self._said = self._in_words()
            self._view.say(self._said)
        if not over and self._said:
            self._view.take_back(self._said)
            self._said = NOTHING
        return session

    def _in_words(self) -> Message:
        newest, action = self._guard.newest, self._guard.action
        if newest is None:
            return NOTHING
        facts = {"n": newest.chunk + 1, "drift": f"{newest.drift:.2f}", "limit": f"{self._guard.threshold:g}"}
        if action == "match":
            return Message("Drift {drift} at chunk {n}: the next gets the colours of the first ones", **facts)
        if action == "recache":
            return Message("Drift {drift} at chunk {n}: the window is passed again", **facts)
        return Message("Drift: chunk {n} is {drift} away from the first chunks, above {limit}", **facts)

    def made(self, session: SessionRecord) -> None:
        """Measure a new chunk, in whichever thread made it."""
        self._guard.measure(session)
        newest = self._guard.newest
        if newest is None:
            return
        self._curve.add(newest)
        measures = asdict(replace(newest, saturation=self._saturation))
        now = {name: value if value is None else round(value, 4) for name, value in measures.items()}
        self._view.tell(drift={"threshold": self._guard.threshold, "points": self.points, "now": now})

    def shown(self, frames: Tensor) -> None:
        """Note the saturation of decoded frames [B, T, H, W, 3]."""
        self._saturation = saturation_of(frames)

    def withdrawn(self, session: SessionRecord) -> None:
        """Forget what a re-roll withdraws."""
        self._curve.withdraw(session.chunks)
