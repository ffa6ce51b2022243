"""A copy on disk of the session that a run makes, for the case that the server is killed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ...sf_core.files import disk_budget
from ...sf_core.files.disk import free_bytes
from ...sf_core.session.session import Session
from ...sf_core.session.session_file import file_bytes
from ..adapters import host
from ..adapters.graph_facts import About

LEAST_PAUSE = 20.0  # seconds between two copies
SHARE_OF_TIME = 0.02  # of a run, that its copies may take
ROOM = 4  # a copy is made where the disk has room for as many


class LiveCopy:
    """The newest copy of a run's session. The pack puts it among the interrupted sessions when ComfyUI starts again."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._folder = host.unfinished_folder()
        self._path: Path | None = None
        self._next = time.monotonic()
        self._closed = False
        self._lock = threading.Lock()  # held while a copy is made

    def offer(self, session: Session) -> None:
        """Copy a session in a thread of its own, if it is time for it. Does not wait."""
        if not self._closed and time.monotonic() >= self._next and self._lock.acquire(blocking=False):
            threading.Thread(target=self._copy, args=(session,), name="self-forcing-copy", daemon=True).start()

    def close(self) -> None:
        """Delete the copy: the run has ended, and its session is a result or saved."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._delete()
            self._lock.release()

    def _copy(self, session: Session) -> None:
        begun = time.monotonic()
        try:
            self._replace(session)
        except (OSError, ValueError) as error:  # the run is more important than its copy
            host.log.warning("the session of a run is not copied for the case of a crash: %s", error)
            self._closed = True
        finally:
            ended = time.monotonic()
            self._next = ended + max(LEAST_PAUSE, (ended - begun) / SHARE_OF_TIME)
            self._lock.release()
        if self._closed:  # meanwhile, so that nobody else deletes this copy
            self.close()

    def _replace(self, session: Session) -> None:
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        if free_bytes(folder) < ROOM * file_bytes(session):
            return
        name = f"killed at chunk {session.chunks} ({time.strftime('%H.%M.%S')}){host.SESSION_ENDING}"
        session.save(folder / name, self._about)
        self._delete()
        self._path = folder / name

    def _delete(self) -> None:
        if self._path is not None:
            disk_budget.delete(self._path)
