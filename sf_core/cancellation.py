"""The request to end a run early, shared by everything that works for the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancelled(Exception):
    """The run was asked to stop. Work in progress is given up; finished work is kept."""


class Cancellation:
    """A request to end a run: one object, owned by the run and polled by everything that works for it.

    ``poll`` reads the host's own flag, which a click sets; a signal handler or another thread calls `cancel`. Whoever
    works for the run calls `raise_if_asked`; the answer is remembered, so that every thread stops, even if the host
    clears its flag when it raises (ComfyUI does; `note` remembers an exception that it raised by itself).
    ARCHITECTURE.md, "The life of an interrupt", has the ten steps.

    A trainer polls between its steps, and saves its state before it raises. `finish` is the gentler request: what is
    in progress is completed, then the run ends as if it had come to its end.
    """

    error: type[BaseException] = Cancelled  # what `raise_if_asked` raises; a host has an exception of its own

    def __init__(self, poll: Callable[[], bool] | None = None) -> None:
        """Begin without a request.

        Args:
            poll: Asked, in any thread, whether the run has been cancelled elsewhere.
        """
        self._poll = poll
        self._asked, self._finishing = threading.Event(), threading.Event()

    def cancel(self) -> None:
        """End the run as soon as possible."""
        self._asked.set()

    def finish(self) -> None:
        """End the run once the work in progress (a chunk) is complete."""
        self._finishing.set()

    @property
    def asked(self) -> bool:
        """Whether the run is to end as soon as possible. Once true, it stays true."""
        if not self._asked.is_set() and self._poll is not None and self._poll():
            self._asked.set()
        return self._asked.is_set()

    @property
    def finishing(self) -> bool:
        """Whether nothing new is to be begun. Does not poll."""
        return self._finishing.is_set() or self._asked.is_set()

    def raise_if_asked(self) -> None:
        """Raise `error` if the run is to end as soon as possible."""
        if self.asked:
            raise self.error

    def causes(self, error: BaseException) -> bool:
        """Whether ``error`` means that the run was cancelled."""
        return isinstance(error, (Cancelled, self.error))

    def note(self, error: BaseException) -> None:
        """Remember the request that ``error`` stands for, if it is one: other threads are to stop too."""
        if self.causes(error):
            self._asked.set()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Remember a cancellation that is raised in the block, in place of passing it on."""
        try:
            yield
        except BaseException as error:
            self.note(error)
            if not self.causes(error):
                raise
