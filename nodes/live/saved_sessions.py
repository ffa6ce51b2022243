"""Saving of sessions to files of their own: no session takes the file of another, and none is lost on a full disk."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...sf_core.byte_units import GIB
from ...sf_core.files import disk_budget
from ...sf_core.files.atomic_write import move_to_new, part_of
from ...sf_core.files.disk import free_bytes
from ...sf_core.session.session import Session
from ...sf_core.session.session_file import file_bytes
from ..adapters import host
from ..adapters.model import comfy_model
from . import chunk_cache, thumbnails

SESSIONS_KEPT = 8  # of interrupted and failed runs
SESSIONS_BYTES = 16 * GIB  # of these; 1.3B at 832 x 480 makes 5.7 GB an hour
_saving = threading.Lock()  # two savers do not write at once to a disk that has room for one


def save_new(session: Session, prefix: str, picture: bytes | None = None) -> Path:
    """Save a session under the next free number below the output folder.

    Args:
        session: The session.
        prefix: Folder below output and beginning of the name, as of `host.output_path`.
        picture: A JPEG to put next to it. None: the newest decoded frame, if one is remembered.

    Returns:
        The file.

    Raises:
        ValueError: ``prefix`` is no name for a file.
        OSError: The file cannot be written. Nothing is left of it.
    """
    rows, columns = (length * comfy_model(session).spatial_factor for length in session.latent_size)
    path = _save(session, (host.output_path(prefix, host.SESSION_ENDING, columns, rows) for _ in itertools.count()))
    thumbnails.write_next_to(path, session, picture)
    return path


def keep(session: Session, why: str) -> str | None:
    """Save a session that would be lost, for Load Session: with the interrupted runs, else in output/sessions.

    Of the interrupted runs' sessions the newest `SESSIONS_KEPT` stay; of these, only as many as keep to the disk's
    budget, and at least the newest.

    Args:
        session: The session.
        why: What happened to its run, in a word: the beginning of the name.

    Returns:
        Its name in Load Session; None if it cannot be saved.
    """
    title = f"{why} at chunk {session.chunks} ({time.strftime('%H.%M.%S')})"
    for save in (_save_interrupted, _save_with_room, _save_in_output):
        try:
            return save(session, title).name
        except OSError as error:
            host.log.warning("cannot keep the session of a run: %s", error)
    return None


def _save_interrupted(session: Session, title: str) -> Path:
    folder = host.interrupted_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = _save(session, _names(folder, title))
    thumbnails.write_next_to(path, session)
    disk_budget.trim(folder.glob(f"*{host.SESSION_ENDING}"), SESSIONS_BYTES, SESSIONS_KEPT, remove=_remove)
    return path


def _save_with_room(session: Session, title: str) -> Path:
    if free_bytes(host.temp_path()) < file_bytes(session):
        chunk_cache.forget_all()  # the session holds what the user made; the chunks can be made again
    return _save_interrupted(session, title)


def _save_in_output(session: Session, title: str) -> Path:
    return save_new(session, f"sessions/{title}")


def _remove(file: Path) -> None:
    disk_budget.delete(file)
    thumbnails.remove_next_to(file)


def _names(folder: Path, title: str) -> Iterator[Path]:
    yield folder / f"{title}{host.SESSION_ENDING}"
    for number in itertools.count(2):
        yield folder / f"{title} {number}{host.SESSION_ENDING}"


def _save(session: Session, names: Iterable[Path]) -> Path:
    """Save a session under the first of ``names`` that no file has, also if several programs save at once."""
    with _saving:
        candidates = iter(names)
        path = next(candidates)
        part = part_of(path)
        try:
            session.save(part)
            while True:
                try:
                    move_to_new(part, path)
                except FileExistsError:
                    path = next(candidates)
                else:
                    return path
        except OSError as error:
            reason = (error.strerror or str(error)).replace(part.name, path.name)
            raise OSError(error.errno, reason) from error
        finally:
            disk_budget.delete(part)
