"""What the executor forgets: chunks that were made, and sessions of runs that did not end.

A chunk is kept under the name of all that it was made from, model included, so whatever graph asks for the same
chunk finds it: after an interrupt, after another graph, after a widget was changed and changed back. Both kinds lie
in ComfyUI's temporary folder, which is emptied when the server starts.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...sf_core.byte_units import GIB
from ...sf_core.files.atomic_write import atomic_write
from ...sf_core.hashing import digest
from ...sf_core.noise import SeededNoise
from ...sf_core.session.session import Progress, Session
from ..adapters import host
from . import thumbnails

CHUNKS_BYTES = 4 * GIB  # 1.3B at 832 x 480 makes 1.2 MB a chunk: some 40 minutes of video
CHUNKS_KEPT = 20_000
TIDY_EVERY = 64  # chunks
SESSIONS_KEPT = 8
_written = itertools.count(1)


def next_chunk(session: Session, progress: Progress) -> tuple[Session, Tensor]:
    """As `Session.next_chunk`, unless the chunk is in the journal; afterwards it is."""
    if not isinstance(session.noise, SeededNoise):
        return session.next_chunk(progress)
    path = host.temp_folder("chunks") / f"{digest(session.model.state_key(), session.next_key).hex()}.safetensors"
    kept = _read(path)
    if kept is not None:
        progress("kept", 0, 1)
        return session.with_chunk(kept), kept
    longer, latents = session.next_chunk(progress)
    _write(path, latents)
    if next(_written) % TIDY_EVERY == 0:
        _make_room(path.parent.glob("*.safetensors"))
    return longer, latents


def _read(path: Path) -> Tensor | None:
    try:
        latents = load_file(path)["latents"]
        os.utime(path)  # used: it goes later
    except (OSError, KeyError, SafetensorError):
        return None
    return latents


def _write(path: Path, latents: Tensor) -> None:
    try:
        with atomic_write(path, sync=False) as part:  # no wait for the disk while a video plays
            save_file({"latents": latents.detach().cpu().contiguous()}, part)
    except OSError as error:  # the video is more important than the journal
        host.log.warning("cannot keep a chunk for later: %s", error)


def _make_room(files: Iterable[Path]) -> None:
    """Delete the chunks that were used longest ago until the others fit."""
    facts = sorted(((file.stat().st_mtime, file.stat().st_size, file) for file in files), reverse=True)
    used = 0
    for number, (_, size, file) in enumerate(facts):
        used += size
        if used > CHUNKS_BYTES or number >= CHUNKS_KEPT:
            file.unlink(missing_ok=True)


def offer(session: Session, error: BaseException) -> str | None:
    """Keep the session of a run that was broken off; the name under which Load Session has it."""
    if not session.frames:
        return None
    why = "interrupted" if host.is_interrupt(error) else "failed"
    folder, stamp = host.interrupted_folder(), time.strftime("%H.%M.%S")
    path = folder / f"{why} at chunk {session.chunks} ({stamp}){host.SESSION_ENDING}"
    try:
        session.save(path)
        thumbnails.write_beside(path, session)
    except OSError as full:
        host.log.warning("cannot keep the session for later: %s", full)
        return None
    for old in sorted(folder.glob(f"*{host.SESSION_ENDING}"), key=os.path.getmtime)[:-SESSIONS_KEPT]:
        old.unlink(missing_ok=True)
        thumbnails.remove_beside(old)
    return path.name
