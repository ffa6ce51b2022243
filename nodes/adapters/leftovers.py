"""Files that a killed server left in ComfyUI's temporary folder, which ComfyUI empties at its start.

`prestartup_script.py` sets them aside before that, and the pack puts them back when it is loaded: sessions of
interrupted runs, stored chunks, videos. ComfyUI loads this file alone, before torch: it imports the standard library
only.
"""

from __future__ import annotations

import shutil
from pathlib import Path

FOLDER = "self_forcing"  # of the pack, below the temporary folder
WORTHLESS = ("live", "archive")  # its folders that mean nothing without the server that wrote them
INTERRUPTED = "interrupted"  # its folder of sessions of interrupted and failed runs
ENDED = "ended"  # its folder of sessions of runs that ended well
UNFINISHED = "unfinished"  # its folder of copies of the sessions of active runs
USERS = "users"  # its folder of the other users' folders of these kinds, with --multi-user


def set_aside(temp: Path) -> None:
    """Move the pack's folder out of the temporary folder, on the same disk. Raises OSError."""
    for name in WORTHLESS:
        shutil.rmtree(temp / FOLDER / name, ignore_errors=True)
    _merge(temp / FOLDER, _aside(temp))


def put_back(temp: Path) -> int:
    """Move the pack's folder back, runs that were active as interrupted ones.

    Returns:
        The number of files.

    Raises:
        OSError: They cannot be moved.
    """
    aside = _aside(temp)
    for folder in (aside, *(aside / USERS).glob("*")):
        _merge(folder / UNFINISHED, folder / INTERRUPTED)
    files = sum(path.is_file() for path in aside.rglob("*"))
    _merge(aside, temp / FOLDER)
    return files


def _aside(temp: Path) -> Path:
    return temp.with_name(f"{temp.name}.{FOLDER}")


def _merge(source: Path, target: Path) -> None:
    """Move a folder, or what is in it if the target exists; of two files of one name the target's stays."""
    if not source.is_dir():
        return
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    for path in source.iterdir():
        if path.is_dir():
            _merge(path, target / path.name)
        elif not (target / path.name).exists():
            path.rename(target / path.name)
    shutil.rmtree(source, ignore_errors=True)
