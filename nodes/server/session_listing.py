"""Session files: listing, saving, deleting. Independent of HTTP."""

from __future__ import annotations

import functools
import hmac
import os
import secrets
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import folder_paths

from ...sf_core.files.file_names import is_plain_name
from ...sf_core.files.published_models import WAN22_CHANNELS, frame_rate
from ...sf_core.session.frame_counts import video_frames
from ...sf_core.session.saved_record import read_record
from ...sf_core.session.session import Session
from ...sf_core.session.timeline import without_blend
from ..adapters import host, users
from ..adapters.graph_facts import About
from ..adapters.model import WAN22_SPATIAL_FACTOR, WAN_SPATIAL_FACTOR, WAN_TEMPORAL_FACTOR
from ..live import saved_sessions, thumbnails

MAX_NAME = 100  # characters
MAX_NAME_BYTES = 200  # of 255 that a file system takes; number and ending need 15
FACTS_REMEMBERED = 2000  # files
LONGEST_PROMPT = 200  # characters of a prompt in an entry
_secret = secrets.token_bytes(32)
_pictures: dict[str, Path] = {}  # by a name that nobody can guess


def all_sessions() -> list[dict[str, Any]]:
    """List the files of Load Session, newest first. An unreadable file has an ``error`` in place of its facts."""
    return sorted(_entries(), key=lambda entry: -entry["modified"])


def _entries() -> Iterator[dict[str, Any]]:
    kinds = {host.interrupted_folder(): "interrupted", host.ended_folder(): "ended"}
    for name in host.session_names():
        try:
            path = host.session_file(name)
            on_disk = path.stat()
        except (OSError, ValueError):  # deleted since the listing, or not a file
            continue
        yield {
            "name": name,
            "kind": next((kind for folder, kind in kinds.items() if folder in path.parents), "saved"),
            "node_id": None,
            **_facts(path, on_disk.st_mtime_ns, on_disk.st_size),
            "bytes": on_disk.st_size,
            "modified": on_disk.st_mtime,
            "picture": _picture(path),
        }


def _facts(path: Path, modified: int, size: int) -> dict[str, Any]:
    try:
        return _read(path, modified, size)
    except Exception as error:  # one bad file may not hide the others
        return _unreadable(path, error)


def _unreadable(path: Path, error: Exception) -> dict[str, Any]:
    message = str(error).replace(str(path), path.name) or type(error).__name__
    none = dict.fromkeys(("chunks", "frames", "width", "height", "model", "seconds"))
    return {**none, "prompt": "", "model_name": "", "workflow": "", "error": message}


@functools.lru_cache(maxsize=FACTS_REMEMBERED)
def _read(path: Path, modified: int, size: int) -> dict[str, Any]:
    """Read the facts of a file from its header. ``modified`` and ``size`` tell its versions apart."""
    try:
        record = read_record(path)
    except ValueError as error:  # remembered too: to find that a large file is damaged takes seconds
        return _unreadable(path, error)
    rows, columns = record["latent_size"]
    factor = WAN22_SPATIAL_FACTOR if record["channels"] == WAN22_CHANNELS else WAN_SPATIAL_FACTOR
    return {
        "chunks": sum(block[0] == "chunk" for block in record["blocks"]),
        "frames": _frames_in(record),
        "width": columns * factor,
        "height": rows * factor,
        "model": record["model"],
        **facts_for_people(record.get("about", {}), _frames_in(record), _prompt_in(record), record["channels"]),
    }


def _frames_in(record: Mapping[str, Any]) -> int:
    return sum(block[1] for block in record["blocks"])


def _prompt_in(record: Mapping[str, Any]) -> str:
    """Return the prompt in effect at the end of a session's record."""
    number, words = record["blocks"][-1][3] if record["blocks"] else record["next"][0], record.get("words", [])
    return words[number] if words else ""


def facts_for_people(about: Mapping[str, Any], frames: int, prompt: str, channels: int) -> dict[str, Any]:
    """Return what an entry says for people.

    Args:
        about: As of `about_session`; of a file, so it may hold anything.
        frames: Number of latent frames.
        prompt: The prompt at its end; "" if it is not known.
        channels: Of the latents, which tell the frames a second where the entry does not.
    """
    fps = about.get("fps")
    rate = fps if isinstance(fps, int | float) and fps > 0 else frame_rate(channels)
    names = {key: about.get(key) if isinstance(about.get(key), str) else "" for key in ("model", "workflow")}
    return {
        "prompt": without_blend(prompt)[:LONGEST_PROMPT],
        "seconds": video_frames(frames, WAN_TEMPORAL_FACTOR) / rate,
        "model_name": names["model"],
        "workflow": names["workflow"],
    }


def _picture(session: Path) -> str | None:
    """Return the address of the picture next to a session; None if there is none."""
    path = session.with_suffix(thumbnails.ENDING)
    try:
        version = path.stat().st_mtime_ns
    except OSError:
        return None
    folders = {"output": folder_paths.get_output_directory(), "temp": folder_paths.get_temp_directory()}
    for kind, folder in folders.items():
        if users.current() == users.DEFAULT and path.is_relative_to(folder):
            place = path.relative_to(folder)
            query = {"filename": place.name, "subfolder": place.parent.as_posix(), "type": kind, "v": version}
            return f"/view?{urlencode(query, errors='surrogateescape')}"
    return f"/self_forcing/sessions/picture/{_key(path)}?v={version}"


def _key(picture: Path) -> str:
    """Make a name of a picture that only its owner is told, because a page's pictures are asked for without a user."""
    name = os.fsencode(picture.resolve())
    key = hmac.new(_secret, name, "sha256").hexdigest()
    _pictures[key] = picture
    return key


def picture(key: str) -> bytes | None:
    """Return the picture that a listing named so; None: there is none."""
    path = _pictures.get(key)
    try:
        return None if path is None else path.read_bytes()
    except OSError:  # deleted since
        del _pictures[key]
        return None


def checked_name(name: str) -> str:
    """Return a file name, without ending, that is valid on every system. Raises ValueError."""
    name = unicodedata.normalize("NFC", name.strip())
    if not 1 <= len(name) <= MAX_NAME or len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"a name has 1 to {MAX_NAME} characters")
    if name.startswith(".") or not is_plain_name(name, " .-"):
        raise ValueError("a name is made of letters, digits, spaces and . _ - and does not begin with a dot")
    return name


def keep(session: Session, name: str | None, about: About, picture: bytes | None) -> str:
    """Save a session where Load Session lists it.

    Args:
        session: The session.
        name: A checked name; None: of the words of its prompt and its newest chunk.
        about: Facts for people, as of `about_session`.
        picture: A JPEG of its end.

    Returns:
        Its name in Load Session.

    Raises:
        OSError: It cannot be saved.
    """
    if name is None:
        return saved_sessions.save_as(session, saved_sessions.moment_of(session, "fork"), about, picture).name
    return saved_sessions.save_new(session, f"sessions/{name}", about, picture).name


def keep_file(session: str, name: str | None) -> str:
    """Copy a listed session to the saved ones.

    Args:
        session: Its name in Load Session.
        name: A name for the copy; None: of the words of its prompt. A taken one gets a number.

    Returns:
        The copy's name in Load Session.

    Raises:
        FileNotFoundError: There is no such session.
        OSError: The copy cannot be written.
        ValueError: ``name`` is no name.
    """
    title = None if name is None else checked_name(name)
    path = _listed(session)
    if title is None:
        title = saved_sessions.title_of(_prompt_in(read_record(path))) or "session"
    return saved_sessions.copy_as(path, title).name


def rename(session: str, name: str) -> str:
    """Rename a session that Load Session lists. Returns its new name.

    Raises:
        FileNotFoundError: There is no such session.
        PermissionError: It is a link to another file.
        OSError: It cannot be renamed.
        ValueError: ``name`` is no name.
    """
    title, path = checked_name(name), _own(session)
    return str(Path(session).parent / saved_sessions.rename(path, title).name)


def _listed(name: str) -> Path:
    """Return the path of a session that Load Session lists. Raises FileNotFoundError."""
    if name not in host.session_names():  # the listed names are relative to the folders
        raise FileNotFoundError(name)
    try:
        return host.session_file(name)
    except ValueError as error:
        raise FileNotFoundError(name) from error


def _own(name: str) -> Path:
    """Return the path of a listed session that is a file of ours. Raises FileNotFoundError, PermissionError."""
    path = _listed(name)
    folders = [folder.resolve() for folder in host.session_folders()]
    folder = path.parent.resolve()
    inside = [one for one in folders if folder.is_relative_to(one) and path.resolve().is_relative_to(one)]
    if not inside or not path.resolve().is_file():
        raise PermissionError(name)
    return folder / path.name


def delete(name: str) -> None:
    """Delete a session and its picture. Raises FileNotFoundError, PermissionError for other files, OSError."""
    path = _own(name)
    path.unlink(missing_ok=True)
    thumbnails.remove_next_to(path)
