"""Numbers of bytes as text. The editor's extension formats them alike (js/lib/format.js)."""

from __future__ import annotations

GIB = 2**30


def format_bytes(nbytes: float) -> str:
    """A number of bytes in binary units: ``5.6 GiB``, ``17.0 MiB``, ``432 KiB``, ``12 bytes``."""
    for unit, name, decimals in ((GIB, "GiB", 1), (2**20, "MiB", 1), (2**10, "KiB", 0)):
        if nbytes >= unit:
            return f"{nbytes / unit:.{decimals}f} {name}"
    return f"{nbytes:.0f} bytes"
