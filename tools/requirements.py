"""Print the requirements in extras and dependency groups of pyproject.toml, one a line, for ``pip install -r``.

    python tools/requirements.py text train test

pip 25.1 and newer can do it alone (``--group``), but a new virtual environment of Python 3.11 has an older pip.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements(names: list[str]) -> list[str]:
    """Requirements in the named extras and groups, in order.

    Raises:
        ValueError: There is no extra or group of that name.
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    known: dict[str, list[str]] = project["project"]["optional-dependencies"] | project["dependency-groups"]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"pyproject.toml has no extra or group {', '.join(unknown)}; it has {', '.join(known)}")
    return [requirement for name in names for requirement in known[name]]


if __name__ == "__main__":
    try:
        print(*requirements(sys.argv[1:]), sep="\n")
    except ValueError as error:
        sys.exit(f"error: {error}")
