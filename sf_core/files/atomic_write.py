"""Writing of a file that appears under its name only when it is complete, and that takes no other file's name."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# On Windows a file that another program has open cannot be replaced. Virus scanners and previews let go soon.
REPLACE_ATTEMPTS = 6
FIRST_WAIT = 0.05  # seconds, doubled after each attempt: 1.6 s in all
ABANDONED = 3600.0  # seconds without a write, after which the process that wrote a temporary file is taken for dead


@contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[Path]:
    """Provide a temporary file to write to, which replaces ``path`` when the block ends without an error.

    After an error ``path`` is as it was, and the temporary file is gone.

    Args:
        path: The file to write; its folder must exist. A link stays, and the file that it names is written.
        sync: Wait until the data is on the disk, so that a power cut leaves the old file or the new one. Without it
            the file is still never half written after a crash of this process.

    Yields:
        The temporary file's path, in the folder of the file. Each call has its own, also among threads and processes.
        The file must be closed before the block ends.

    Raises:
        OSError: The file cannot be written, or another program has ``path`` open.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = part_of(path)
    try:
        yield temporary
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        _replace(temporary, path)
    finally:
        with suppress(OSError):  # the error in flight says more
            temporary.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return an unused name for a temporary file beside ``path``."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")


def move_to_new(source: Path, target: Path) -> None:
    """Move a complete file to a name in the same folder that no file has, also if several processes try at once.

    Raises:
        FileExistsError: ``target`` exists; ``source`` is left.
        OSError: The file cannot be moved.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with target.open("xb") as reserved, source.open("rb") as file:
            shutil.copyfileobj(file, reserved)
    source.unlink()


def sweep_parts(folder: Path, name: str, now: float | None = None) -> list[Path]:
    """Delete temporary files that a killed process left below ``folder``, and return them.

    Args:
        folder: Searched with its subfolders.
        name: Pattern of the names that the files would have got.
        now: Seconds since 1970, by default the present. Files that were written to within `ABANDONED` before it stay:
            another process may be at work.
    """
    before, swept = (time.time() if now is None else now) - ABANDONED, []
    for part in folder.rglob(f"{name}.*.part"):
        with suppress(OSError):  # it is swept another time
            if part.stat().st_mtime < before:
                part.unlink()
                swept.append(part)
    return swept


def _replace(temporary: Path, path: Path) -> None:
    for attempt in range(REPLACE_ATTEMPTS):
        try:
            temporary.replace(path)
            return
        except PermissionError as error:
            if attempt == REPLACE_ATTEMPTS - 1:
                reason = "it cannot be replaced. If another program has it open, close it there and try again"
                raise PermissionError(error.errno, reason, str(path)) from error
            time.sleep(FIRST_WAIT * 2**attempt)
