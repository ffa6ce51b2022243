"""Saving of sessions to files of their own: no session takes the file of another, and none is lost on a full disk."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ...sf_core.byte_units import GIB
from ...sf_core.files import disk_budget
from ...sf_core.files.atomic_write import move_to_new, part_of
from ...sf_core.files.disk import free_bytes, make_folder
from ...sf_core.files.file_names import name_from
from ...sf_core.session.session import Session
from ...sf_core.session.session_file import file_bytes
from ...sf_core.session.timeline import without_blend
from ..adapters import host
from ..adapters.graph_facts import About
from ..adapters.model import comfy_model
from . import chunk_cache, thumbnails

SESSIONS_KEPT = 8  # of interrupted and failed runs, and as many of runs that ended well
SESSIONS_BYTES = 16 * GIB  # of each of the two; 1.3B at 832 x 480 makes 5.7 GB an hour
TITLE = (60, 150)  # characters and bytes of a prompt in the name of a session, at most
_saving = threading.Lock()  # two savers do not write at once to a disk that has room for one


def save_new(session: Session, prefix: str, about: About, picture: bytes | None = None) -> Path:
    """Save a session under the next free number below the output folder.

    Args:
        session: The session.
        prefix: Folder below output and beginning of the name, as of `host.output_path`.
        about: Facts for people, as of `about_session`.
        picture: A JPEG to put next to it. None: the newest decoded frame, if one is remembered.

    Returns:
        The file.

    Raises:
        ValueError: ``prefix`` is no name for a file.
        OSError: The file cannot be written. Nothing is left of it.
    """
    rows, columns = (length * comfy_model(session).spatial_factor for length in session.latent_size)
    names = (host.output_path(prefix, host.SESSION_ENDING, columns, rows) for _ in itertools.count())
    path = _save(session, names, about)
    thumbnails.write_next_to(path, session, picture)
    return path


def save_as(session: Session, title: str, about: About, picture: bytes | None = None) -> Path:
    """Save a session with the saved ones under ``title``, or with a number behind it; else as `save_new`."""
    folder = host.saving_folder() / "sessions"
    make_folder(folder)
    path = _save(session, _names(folder, title), about)
    thumbnails.write_next_to(path, session, picture)
    return path


def keep(session: Session, why: str, about: About) -> Path | None:
    """Save a session that would be lost, for Load Session: with the interrupted runs, else in output/sessions.

    Of the interrupted runs' sessions the newest `SESSIONS_KEPT` stay; of these, only as many as keep to the disk's
    budget, and at least the newest.

    Args:
        session: The session.
        why: What happened to its run, in a word: the beginning of the name.
        about: Facts for people, as of `about_session`.

    Returns:
        The file; None if it cannot be saved.
    """
    title = f"{why} at chunk {session.chunks} ({_now()})"
    for save in (_save_interrupted, _save_with_room, _save_in_output):
        try:
            return save(session, title, about)
        except OSError as error:
            host.log.warning("cannot keep the session of a run: %s", error)
    return None


def keep_ended(session: Session, about: About) -> Path | None:
    """Save the last session of a run that ended well, so that one can go on from it.

    The newest `SESSIONS_KEPT` stay, within the disk's budget, apart from those of `keep`. Nothing makes room for them:
    the run's result is elsewhere too.

    Args:
        session: The session.
        about: Facts for people, as of `about_session`.

    Returns:
        The file; None if it cannot be saved.
    """
    try:
        return _save_in(host.ended_folder(), session, f"{moment_of(session, 'ended')} ({_now()})", about)
    except OSError as error:
        host.log.warning("cannot keep the session of a run that ended: %s", error)
        return None


def copy_as(file: Path, title: str) -> Path:
    """Copy a session's file and picture to the saved sessions under ``title``, or with a number behind it.

    Args:
        file: The session.
        title: A plain name.

    Returns:
        The copy.

    Raises:
        OSError: The copy cannot be written, or there is no such session any more.
    """
    folder = host.saving_folder() / "sessions"
    make_folder(folder)
    path = _write(lambda part: shutil.copyfile(file, part), _names(folder, title))
    picture = thumbnails.picture_next_to(file)
    if picture is not None:
        thumbnails.put_next_to(path, picture)
    return path


def prompt_of(session: Session) -> str:
    """Return the prompt in effect at the end of a session, as text; "" if it is not known."""
    return (session.head.prompt if session.head else session.prompt).words


def title_of(prompt: str) -> str:
    """Return a name for a file of the first words of a prompt; "" if it has none."""
    return name_from(without_blend(prompt), "-", *TITLE)


def moment_of(session: Session, otherwise: str) -> str:
    """Return a name for a file of where a session is: its prompt, or ``otherwise``, and its newest chunk."""
    return f"{title_of(prompt_of(session)) or otherwise} at chunk {session.chunks}"


def _now() -> str:
    return time.strftime("%H.%M.%S")


def _save_interrupted(session: Session, title: str, about: About) -> Path:
    return _save_in(host.interrupted_folder(), session, title, about)


def _save_in(folder: Path, session: Session, title: str, about: About) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = _save(session, _names(folder, title), about)
    thumbnails.write_next_to(path, session)
    disk_budget.trim(folder.glob(f"*{host.SESSION_ENDING}"), SESSIONS_BYTES, SESSIONS_KEPT, remove=_remove)
    return path


def _save_with_room(session: Session, title: str, about: About) -> Path:
    if free_bytes(host.temp_path()) < file_bytes(session):
        chunk_cache.forget_all()  # the session holds what the user made; the chunks can be made again
    return _save_interrupted(session, title, about)


def _save_in_output(session: Session, title: str, about: About) -> Path:
    return save_new(session, f"sessions/{title}", about)


def _remove(file: Path) -> None:
    disk_budget.delete(file)
    thumbnails.remove_next_to(file)


def _names(folder: Path, title: str) -> Iterator[Path]:
    yield folder / f"{title}{host.SESSION_ENDING}"
    for number in itertools.count(2):
        yield folder / f"{title} {number}{host.SESSION_ENDING}"


def rename(file: Path, title: str) -> Path:
    """Give a session and its picture another name in the same folder: ``title``, or with a number behind it.

    Raises:
        OSError: It cannot be renamed.
    """
    for path in _names(file.parent, title):
        if path == file:
            return file
        with suppress(FileExistsError):
            move_to_new(file, path)
            break
    picture = thumbnails.picture_next_to(file)
    if picture is not None:
        thumbnails.put_next_to(path, picture)
        thumbnails.remove_next_to(file)
    return path


def _save(session: Session, names: Iterable[Path], about: About) -> Path:
    """Save a session under the first of ``names`` that no file has, also if several programs save at once."""
    return _write(lambda part: session.save(part, about), names)


def _write(write: Callable[[Path], object], names: Iterable[Path]) -> Path:
    """Let ``write`` make a file, and give it the first of ``names`` that no other has."""
    with _saving:
        candidates = iter(names)
        path = next(candidates)
        part = part_of(path)
        try:
            write(part)
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
