"""Checks of names of files to write, made before the work so that it is not lost to a bad name."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PureWindowsPath

WINDOWS = os.name == "nt"
MAX_NAME_BYTES = 216  # of 255 that file systems take; names of temporary files, two deep, and sidecars are longer
_JOINERS = "_\u200c\u200d"  # the latter two shape letters of Hindi, Persian and others
_FORBIDDEN = '<>:"|?*'
_PORTS = "123456789\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}"
_RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    "CONIN$",
    "CONOUT$",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in _PORTS),
}


def windows_name_fault(path: str) -> str | None:
    """Explain why Windows cannot store a file under ``path``; None if it can.

    Windows opens devices for some names, silently drops dots and spaces at the end of others, and writes the part
    behind a colon into a hidden stream.
    """
    windows_path = PureWindowsPath(path)
    for part in windows_path.parts[1 if windows_path.anchor else 0 :]:
        if part in (".", ".."):
            continue
        characters = sorted({c for c in part if c in _FORBIDDEN or ord(c) < 32})
        if characters:
            return f"{part!r} contains {' '.join(map(repr, characters))}, which Windows does not allow in names"
        if part[-1] in ". ":
            return f"{part!r} ends in a {'dot' if part[-1] == '.' else 'space'}, which Windows removes from names"
        if part.partition(".")[0].rstrip().upper() in _RESERVED:
            return f"{part!r} is the name of a device on Windows"
    return None


def is_plain_name(name: str, also: str) -> bool:
    """Whether a name consists of letters and digits of any script, ``_`` and the characters of ``also``."""
    return bool(name) and all(
        c.isalnum() or c in also or c in _JOINERS or unicodedata.category(c).startswith("M") for c in name
    )


def name_from(text: str, also: str, characters: int, size: int) -> str:
    """Make a plain name, as of `is_plain_name`, of the first words of a text.

    Args:
        text: Text in any script.
        also: Characters that may stay besides letters and digits.
        characters: The most that the name has.
        size: The most bytes that it takes.

    Returns:
        The name, which ends with a whole word if the text has short ones. "" if the text holds no letter or digit.
    """
    words = "".join(c if is_plain_name(c, also) else " " for c in unicodedata.normalize("NFC", text)).split()
    name = ""
    for word in words if any(c.isalnum() for c in text) else ():
        longer = f"{name} {word}".strip()
        if len(longer) > characters or len(longer.encode()) > size:
            break
        name = longer
    if not name and words:  # a script without spaces
        name = words[0][:characters].encode()[:size].decode(errors="ignore")
    name = name.strip(f". {_JOINERS[1:]}")
    return f"{name}-" if windows_name_fault(name) else name


def libav_url(path: Path) -> str:
    """Return a path as PyAV opens it. Without the scheme, ``12:30.mp4`` or ``concat:x.mp4`` would name a protocol."""
    return f"file:{path}"


def check_new_file(path: Path, needs_folder: bool = True) -> None:
    """Check that a file can be written under ``path``.

    Args:
        path: The file to write.
        needs_folder: Its folder must exist; otherwise it is created later.

    Raises:
        ValueError: The name is invalid on this system or too long, is that of a folder, or its folder does not exist.
    """
    check_file_name(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():  # as root, it would be replaced by a file
        raise ValueError(f"{path} is a device or a pipe, not a file; choose another name")
    if needs_folder and not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}; make it first, or name another")


def check_file_name(path: Path) -> None:
    """Check that this system can store a file under ``path``. Raises ValueError."""
    fault = windows_name_fault(str(path)) if WINDOWS else None
    if fault is not None:
        raise ValueError(f"{path}: {fault}; choose another name")
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} contains a character of number 0; choose another name")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ValueError(f"{str(path)!r} contains half a character; choose another name") from error
    if (size := len(os.fsencode(path.name))) > MAX_NAME_BYTES:
        raise ValueError(
            f"{path.name[:40]}... is too long a name: {size} bytes, expected at most {MAX_NAME_BYTES}; shorten it"
        )
