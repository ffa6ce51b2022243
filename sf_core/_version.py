"""The version of the pack, read from its one source: ``pyproject.toml``.

It stands there because the Comfy registry and ComfyUI Manager read it from that file and run no code.
"""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

NAME = "self-forcing"  # as in pyproject.toml


def read_version(project_file: Path) -> str:
    """Return the version of this source tree or custom node folder, else of the installed package.

    Args:
        project_file: The ``pyproject.toml`` beside the package. It is used only if it is this project's own.

    Returns:
        The version, or ``"unknown"`` for a copy of the package without either.
    """
    try:
        project = tomllib.loads(project_file.read_text(encoding="utf-8"))["project"]
        if project["name"] == NAME:
            return str(project["version"])
    except (OSError, ValueError, LookupError, TypeError):
        pass  # installed with pip: there is no such file, or it is another project's
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return "unknown"


__version__ = read_version(Path(__file__).resolve().parent.parent / "pyproject.toml")
