"""Parts of a documentation page that a command writes: the text between two marks. All else is written by hand."""

from __future__ import annotations

import re
from pathlib import Path

END = "<!-- until here -->"


def begin(maker: str) -> str:
    """Return the mark before the part that ``maker`` writes."""
    return f"<!-- made by {maker} -->"


def part_of(page: str, maker: str) -> str:
    """Return the part of a page's text that ``maker`` writes.

    Raises:
        ValueError: The page has no such part.
    """
    found = _pattern(maker).search(page)
    if found is None:
        raise ValueError(f"no part of the page is made by {maker}: put the lines {begin(maker)} and {END} into it")
    return found[1].strip()


def write_part(path: Path, maker: str, text: str) -> None:
    """Replace the part of a page that ``maker`` writes. Raises ValueError if the page has none."""
    page = path.read_text(encoding="utf-8")
    part_of(page, maker)
    new = _pattern(maker).sub(lambda _: f"{begin(maker)}\n\n{text}\n\n{END}", page)
    path.write_text(new, encoding="utf-8")


def _pattern(maker: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(begin(maker))}(.*?){re.escape(END)}", re.DOTALL)
