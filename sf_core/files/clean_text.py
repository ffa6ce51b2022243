"""Text from files, pages and the clipboard, without what no prompt means: a byte order mark, half a character."""

from __future__ import annotations

BYTE_ORDER_MARK = "\ufeff"


def clean_text(text: str) -> str:
    """Return ``text`` in whole characters and without byte order marks, so that a file gives it back unchanged."""
    return whole_characters(text).replace(BYTE_ORDER_MARK, "")


def whole_characters(text: str) -> str:
    """Return ``text`` so that it can be written as UTF-8.

    The two halves of an emoji are joined. One without its other half, as strings that JavaScript cut have it, becomes
    U+FFFD.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
