"""Style rules of files that no linter knows: python -m tools.lint_project, which `make lint` runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
HELP_LINES = 60  # of a page of help: a screen
PICTURE_BYTES = 60_000
PICTURE_WIDTHS = range(301, 1001)  # pixels, crisp in the help panel
INIT_LINES = 12  # of the pack's __init__.py, which only hands over to nodes/
GOLDEN_BYTES = 20_000_000  # of the reference's numbers, which every clone downloads
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def check_help(folder: Path) -> Iterator[str]:
    """Check the pages of help and their pictures."""
    for page in sorted(folder.rglob("*.md")):
        count = len(page.read_text(encoding="utf-8").splitlines())
        if count > HELP_LINES:
            yield f"{page}: {count} lines; at most {HELP_LINES}"
    for picture in sorted((folder / "pictures").iterdir()):
        if picture.stat().st_size >= PICTURE_BYTES:
            yield f"{picture}: {picture.stat().st_size} bytes; at most {PICTURE_BYTES - 1}"
        with Image.open(picture) as image:
            if image.width not in PICTURE_WIDTHS:
                yield f"{picture}: {image.width} pixels wide; {PICTURE_WIDTHS[0]} to {PICTURE_WIDTHS[-1]} expected"


def check_chinese(path: Path) -> Iterator[str]:
    """Check that the Chinese texts of nodes are not left in English."""
    for node, texts in json.loads(path.read_text(encoding="utf-8")).items():
        named = {"description": texts["description"]}
        named |= {f"inputs.{name}.tooltip": entry["tooltip"] for name, entry in texts.get("inputs", {}).items()}
        yield from (f"{path}: {node}.{name} is not Chinese" for name, text in named.items() if not CHINESE.search(text))


def check_init(path: Path) -> Iterator[str]:
    """Check that the pack's module stays a few lines."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(lines) > INIT_LINES:
        yield f"{path}: {len(lines)} lines; at most {INIT_LINES}"


def check_golden(folder: Path) -> Iterator[str]:
    """Check the size of the golden numbers."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size >= GOLDEN_BYTES:
        yield f"{folder}: {size} bytes; at most {GOLDEN_BYTES - 1}"


def problems(root: Path = ROOT) -> list[str]:
    """Return what breaks a rule, a line each."""
    return [
        *check_help(root / "js" / "docs"),
        *check_chinese(root / "locales" / "zh" / "nodeDefs.json"),
        *check_init(root / "__init__.py"),
        *check_golden(root / "tests" / "parity"),
    ]


if __name__ == "__main__":
    found = problems()
    print("\n".join(found) or "the project's own rules: all hold")
    sys.exit(bool(found))
