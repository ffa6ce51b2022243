"""A stream without an end pauses when nobody has watched it for a while, and goes on when somebody does."""

from __future__ import annotations

from sf_core.session.idle import UNWATCHED_SECONDS, IdlePause
from sf_core.session.stream_host import StreamEvent
from sf_core.session.streaming import stream
from tests.session.test_streaming import Decoder, Host, start

MINUTE = 60.0


class IdleHost(Host):
    """A stream whose chunks take a minute each, and that somebody watches at times."""

    def __init__(self) -> None:
        super().__init__(at={25 * MINUTE: self.come})
        self.watched = True
        self.pauses: list[tuple[bool, float]] = []  # what was said, and when
        self.pause = IdlePause(
            lambda: self.watched, lambda paused: self.pauses.append((paused, self.time)), clock=lambda: self.time
        )

    def come(self) -> None:
        self.watched = True

    def _sleep(self, seconds: float) -> None:
        self.time += MINUTE
        for time in [time for time in self.at if time <= self.time]:
            self.at.pop(time)()

    def must_wait(self) -> bool:
        return self.pause.must_wait()

    def shown(self, event: StreamEvent) -> None:
        super().shown(event)
        self.time += MINUTE
        if event.chunk == 2:
            self.watched = False
        if self.time > 26 * MINUTE:
            self.cancellation.finish()


def test_an_endless_stream_pauses_unwatched_and_goes_on_when_somebody_watches() -> None:
    host = IdleHost()
    chunks = len(list(stream(start(), Decoder(), host=host, overlap=False)))
    (began, at), (ended, until) = host.pauses
    assert (began, ended) == (True, False)
    assert 2 * MINUTE <= at - UNWATCHED_SECONDS <= 4 * MINUTE
    assert until == 25 * MINUTE
    assert 12 <= chunks <= 15  # some three minutes watched, ten unwatched, one watched again
