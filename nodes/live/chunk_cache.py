"""A disk cache of sampled chunks.

ComfyUI's executor forgets them. A chunk is stored under a digest of everything that it was made from, the model
included, so that any graph finds it: after an interrupt, after another graph, after a widget was changed and changed
back. It is not the session's archive, which moves latents of one running session out of memory. All files are in
ComfyUI's temporary folder.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...sf_core.byte_units import GIB
from ...sf_core.files import disk_budget
from ...sf_core.files.disk import free_bytes
from ...sf_core.files.safetensors_file import open_tensors, write_tensors
from ...sf_core.hashing import digest, tensor_digest
from ...sf_core.message import Message
from ...sf_core.session.next_chunk import Progress
from ...sf_core.session.noise_record import facts_of
from ...sf_core.session.session import Session
from ..adapters import host

CHUNKS_BYTES = 4 * GIB  # 1.3B at 832 x 480 makes 1.2 MB a chunk: some 40 minutes of video
CHUNKS_KEPT = 20_000
TIDY_EVERY = 64  # chunks
LITTLE_SPACE = GIB // 4  # free bytes below which every chunk is followed by tidying
_DIGEST = "digest"  # of the values, in the file's metadata
_written = itertools.count(1)


class ChunkCache:
    """The stored chunks, as one run uses them. When they cannot be written, the run goes on without them.

    Args:
        say: Shows a sentence to the user.
    """

    def __init__(self, say: Callable[[Message], None]) -> None:
        self._say, self._stopped = say, False

    def next_chunk(self, session: Session, progress: Progress) -> tuple[Session, Tensor]:
        """Return the stored chunk, or sample it with `Session.next_chunk` and store it."""
        if facts_of(session.noise) is None:
            return session.next_chunk(progress)
        name = f"{digest(session.model.state_key(), session.next_key).hex()}.safetensors"
        stored = _read(chunks_folder() / name, session)
        if stored is not None:
            progress("kept", 0, 1)
            return stored
        longer, latents = session.next_chunk(progress)
        if not self._stopped:
            self._store(name, longer.newest_chunk())
        return longer, latents

    def _store(self, name: str, chunk: dict[str, Tensor]) -> None:
        try:
            folder = host.temp_folder("chunks")
            _write(folder / name, chunk)
            if next(_written) % TIDY_EVERY == 0 or free_bytes(folder) < LITTLE_SPACE:
                disk_budget.trim(folder.glob("*.safetensors"), CHUNKS_BYTES, CHUNKS_KEPT, always=0)
        except OSError as error:  # the video is more important than the cache
            self._stopped = True
            why = error.strerror or error
            sentence = Message("chunks are not stored for later runs from here on: {why}", why=why)
            host.log.warning("%s", sentence)
            self._say(sentence)


def chunks_folder() -> Path:
    """Return the folder of stored chunks, which need not exist."""
    return host.temp_path("chunks")


def forget_all() -> None:
    """Delete all stored chunks, to make room for something that cannot be made again."""
    for file in chunks_folder().glob("*.safetensors"):
        disk_budget.delete(file)


def _read(path: Path, session: Session) -> tuple[Session, Tensor] | None:
    """Return the session with a stored chunk; None if there is none, or it is not what was stored."""
    try:
        tensors, facts = open_tensors(path)
        chunk = {name: part.read() for name, part in tensors.items()}  # not mapped: a shortened file kills the server
        if facts.get(_DIGEST) != _digest_of(chunk):
            raise ValueError(f"{path.name} does not hold the values that were stored")
        longer = session.with_chunk(**chunk)
        os.utime(path)  # used now: deleted later
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        host.log.warning("a stored chunk is damaged, and is made again: %s", error)
        return None
    return longer, chunk["latents"]


def _write(path: Path, chunk: dict[str, Tensor]) -> None:
    values = {name: part.detach().to("cpu", torch.float32).contiguous() for name, part in sorted(chunk.items())}
    layout = {name: (list(part.shape), torch.float32) for name, part in values.items()}
    # no wait for the disk while a video plays
    write_tensors(path, layout, list(values.values()), {_DIGEST: _digest_of(values)}, sync=False)


def _digest_of(chunk: dict[str, Tensor]) -> str:
    """The digest of a chunk's values; of latents alone it is the one that earlier versions wrote."""
    return "".join(tensor_digest(part).hex() for _, part in sorted(chunk.items()))
