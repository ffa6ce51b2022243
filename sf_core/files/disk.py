"""Room and rights on disks, checked before the work so that it is not lost at its end."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from ..byte_units import format_bytes


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that ``folder`` is on; it need not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())


def make_folder(folder: Path) -> None:
    """Make a folder for files to write, and check that files can be made in it. An existing file is not touched.

    Raises:
        OSError: It cannot be made, or no file can be made in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        blocking = next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None)
        reason = error.strerror if blocking is None else f"{blocking} is a file, not a folder"
        raise OSError(error.errno, f"no file can be made in {folder}: {reason}. Name another folder") from error


def check_room(sizes: Mapping[Path, int], or_else: str = "make a shorter video") -> None:
    """Check that files fit their disks.

    Args:
        sizes: Estimated bytes by path; the folders need not exist.
        or_else: What else helps than more room or another disk.

    Raises:
        OSError: A disk has too little room, in numbers.
    """
    disks: dict[int, dict[Path, int]] = defaultdict(dict)
    for path, size in sizes.items():
        disks[_existing(path.parent).stat().st_dev][path] = size
    for files in disks.values():
        first, needed = next(iter(files)), sum(files.values())
        free = free_bytes(first.parent)
        if needed > free:
            names = " and ".join(map(str, files))
            raise OSError(
                errno.ENOSPC,
                f"{names} will take about {format_bytes(needed)}, and the disk has {format_bytes(free)} free. "
                f"Make room, write elsewhere, or {or_else}",
            )
