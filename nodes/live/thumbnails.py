"""Small pictures of sessions: the newest frame that was decoded of each, for the file that it may be saved to."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import Tensor

from ...sf_core.session.session import Session
from ..adapters import host
from ..adapters.images import jpegs_of

ENDING = ".jpg"  # of the picture beside a session's file
LONGEST_EDGE = 256  # pixels
KEPT = 64
_pictures: OrderedDict[bytes, bytes] = OrderedDict()  # by the past that ends with the picture


def remember(session: Session, frame: Tensor) -> None:
    """``frame`` [H, W, 3] in 0..1 is the last of ``session``."""
    if session.head is None:
        return
    _pictures[session.head.lineage] = jpegs_of(frame[None], LONGEST_EDGE)[0]
    while len(_pictures) > KEPT:
        _pictures.popitem(last=False)


def write_beside(file: Path, session: Session, picture: bytes | None = None) -> None:
    """A picture for the session's ``file``: this one, or the newest of its past that is known, if there is any."""
    blocks = session.head.back() if session.head else ()
    picture = picture or next((_pictures[one.lineage] for one in blocks if one.lineage in _pictures), None)
    if picture is None:
        return
    try:
        file.with_suffix(ENDING).write_bytes(picture)
    except OSError as error:  # the session is more important than its picture
        host.log.warning("cannot keep a session's picture: %s", error)


def remove_beside(file: Path) -> None:
    picture = file.with_suffix(ENDING)
    if not picture.is_dir():
        picture.unlink(missing_ok=True)
