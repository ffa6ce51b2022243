"""A disk cache of sampled chunks, and autosave of interrupted sessions.

ComfyUI's executor forgets both. A chunk is stored under a digest of everything that it was made from, the model
included, so that any graph finds it: after an interrupt, after another graph, after a widget was changed and changed
back. It is not the session's archive, which moves latents of one running session out of memory. All files are in
ComfyUI's temporary folder, which is emptied when the server starts.
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
    """Return the stored chunk, or sample it with `Session.next_chunk` and store it."""
    if not isinstance(session.noise, SeededNoise):
        return session.next_chunk(progress)
    path = host.temp_folder("chunks") / f"{digest(session.model.state_key(), session.next_key).hex()}.safetensors"
    stored = _read(path)
    if stored is not None:
        progress("kept", 0, 1)
        return session.with_chunk(stored), stored
    longer, latents = session.next_chunk(progress)
    _write(path, latents)
    if next(_written) % TIDY_EVERY == 0:
        _make_room(path.parent.glob("*.safetensors"))
    return longer, latents


def _read(path: Path) -> Tensor | None:
    try:
        latents = load_file(path)["latents"]
        os.utime(path)  # used now: deleted later
    except (OSError, KeyError, SafetensorError):
        return None
    return latents


def _write(path: Path, latents: Tensor) -> None:
    try:
        with atomic_write(path, sync=False) as part:  # no wait for the disk while a video plays
            save_file({"latents": latents.detach().cpu().contiguous()}, part)
    except OSError as error:  # the video is more important than the cache
        host.log.warning("cannot store a chunk for later runs: %s", error)


def _make_room(files: Iterable[Path]) -> None:
    """Delete the least recently used chunks until the others fit."""
    facts = sorted(((file.stat().st_mtime, file.stat().st_size, file) for file in files), reverse=True)
    used = 0
    for number, (_, size, file) in enumerate(facts):
        used += size
        if used > CHUNKS_BYTES or number >= CHUNKS_KEPT:
            file.unlink(missing_ok=True)


def autosave(session: Session, error: BaseException) -> str | None:
    """Save the session of a run that ended early. Returns its name in Load Session; None if it is not saved."""
    if not session.frames:
        return None
    cause = "interrupted" if host.is_interrupt(error) else "failed"
    folder, stamp = host.interrupted_folder(), time.strftime("%H.%M.%S")
    path = folder / f"{cause} at chunk {session.chunks} ({stamp}){host.SESSION_ENDING}"
    try:
        session.save(path)
        thumbnails.write_next_to(path, session)
    except OSError as full:
        host.log.warning("cannot save the interrupted session: %s", full)
        return None
    for old in sorted(folder.glob(f"*{host.SESSION_ENDING}"), key=os.path.getmtime)[:-SESSIONS_KEPT]:
        old.unlink(missing_ok=True)
        thumbnails.remove_next_to(old)
    return path.name
