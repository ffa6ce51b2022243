"""The English help pages where the editor looks first.

It asks for ``docs/<NodeId>/<language>.md``, then for ``docs/<NodeId>.md``, which is English and serves all languages
without a page of their own. `python -m tools.assets.help_pages` copies that page to ``docs/<NodeId>/en.md``, so that
English editors find it at once, without an error in their log. A Chinese page is ``docs/<NodeId>/zh.md``, written by
hand. Pictures are named from ``docs/`` in all of them, as the editor does.
"""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "js" / "docs"


def english_pages(docs: Path = DOCS) -> dict[Path, bytes]:
    """Return the content of each copy, by its path."""
    return {docs / page.stem / "en.md": page.read_bytes() for page in sorted(docs.glob("*.md"))}


if __name__ == "__main__":
    for path, content in english_pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
