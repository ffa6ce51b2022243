"""Thumbnails of sessions: the newest decoded frame, for the file that the session may be saved to."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import Tensor

from ...sf_core.files import disk_budget
from ...sf_core.session.session import Session
from ..adapters import host
from ..adapters.images import jpegs_of

ENDING = ".jpg"  # of the picture next to a session's file
LONGEST_EDGE = 256  # pixels
REMEMBERED = 64  # pictures
_pictures: OrderedDict[bytes, bytes] = OrderedDict()  # by the lineage of the block that ends with the picture


def remember(session: Session, frame: Tensor) -> None:
    """Remember ``frame`` [H, W, 3], float in 0..1 or 8-bit, as the last of ``session``."""
    if session.head is None:
        return
    _pictures[session.head.lineage] = jpegs_of(frame[None], LONGEST_EDGE)[0]
    while len(_pictures) > REMEMBERED:
        _pictures.popitem(last=False)


def write_next_to(file: Path, session: Session, picture: bytes | None = None) -> None:
    """Write a picture next to the session's ``file``: the given one, else the newest remembered one of its past."""
    blocks = session.head.back() if session.head else ()
    picture = picture or next((_pictures[one.lineage] for one in blocks if one.lineage in _pictures), None)
    if picture is not None:
        put_next_to(file, picture)


def put_next_to(file: Path, picture: bytes) -> None:
    """Write ``picture``, a JPEG, next to a session's file."""
    try:
        file.with_suffix(ENDING).write_bytes(picture)
    except OSError as error:  # the session is more important than its picture
        host.log.warning("cannot write a session's picture: %s", error)


def picture_next_to(file: Path) -> bytes | None:
    """Return the JPEG next to a session's file; None: there is none."""
    try:
        return file.with_suffix(ENDING).read_bytes()
    except OSError:
        return None


def remove_next_to(file: Path) -> None:
    """Delete the picture next to a session's file."""
    picture = file.with_suffix(ENDING)
    if not picture.is_dir():
        disk_budget.delete(picture)
