"""File names that every system accepts."""

from __future__ import annotations

import os
import re

_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def check_file_name(name: str, windows: bool = os.name == "nt") -> None:
    """Check that ``name``, which may begin with folders, can be the name of a file.

    Windows takes ``a:b`` for a hidden part of file ``a``, and ``con.txt`` for a device.

    Raises:
        ValueError: It cannot.
    """
    if not windows:
        return
    for part in re.split(r"[/\\]", name):
        bad = _FORBIDDEN.search(part)
        if bad or part.partition(".")[0].strip().lower() in _DEVICES or (part.strip(".") and part[-1] in ". "):
            raise ValueError(
                f"{name!r} is no name for a file on Windows: {part!r} is reserved, ends with a dot or a blank, or "
                'holds one of < > : " | ? *. Use letters, digits, spaces and . _ -'
            )
