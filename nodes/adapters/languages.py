"""Languages of the editor's pages, and texts of nodes in them.

A page tells its language when it attaches. What a node says is in the language of the page that queued it, so nodes say
`Message`, which is English for everybody else: programs, the log, outputs and errors. The translations of templates are
in locales/<language>/messages.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ...sf_core.message import Message

LOCALES = Path(__file__).parents[2] / "locales"
LONGEST_LANGUAGE = 35  # characters, as BCP 47 advises
_languages: dict[str, str] = {}  # by client


def set_language(client_id: str, language: str) -> None:
    """Note the language of a client, such as ``zh`` or ``zh-TW``; English stands in for one without translations."""
    _languages[client_id] = language


def forget_client(client_id: str) -> None:
    """Forget the language of a client."""
    _languages.pop(client_id, None)


def for_client(message: Message, client_id: str | None) -> str:
    """Return a message in the language of a client; in English if it has told none."""
    return in_language(message, _languages.get(client_id or "", ""))


def in_language(message: Message, language: str) -> str:
    """Return a message in a language, or in the one that it is a variant of; else in English."""
    templates = _templates()
    return message.translated(templates.get(language) or templates.get(language.partition("-")[0]) or {})


def in_all(message: Message) -> dict[str, str]:
    """Return a message in each language, English included."""
    return {"en": str(message)} | {language: message.translated(texts) for language, texts in _templates().items()}


@cache
def _templates() -> dict[str, Mapping[str, str]]:
    """The translations of English templates, by language."""
    files = sorted(LOCALES.glob("*/messages.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
