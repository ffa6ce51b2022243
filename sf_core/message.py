"""Texts for users that can be translated: each is its English text, and knows its template and values.

The library and the command line print the English. A program with translations looks its template up (`translated`).
A template is written out where its `Message` is made, so that all of them can be collected from the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce


class Message(str):
    """A template such as ``"chunk {n} of {m}"`` with values in place of their names; values may be messages."""

    template: str
    values: dict[str, object]

    def __new__(cls, template: str, /, **values: object) -> Message:
        """Make the English text of ``template``. Raises KeyError if it names a value that is not given."""
        self = super().__new__(cls, cls._finished(template.format(**values)))
        self.template, self.values = template, values
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        """Return what a copy is made of."""
        return (self.template,), self.values

    def translated(self, templates: Mapping[str, str]) -> str:
        """Return the text with templates in another language, by the English ones; English where there is none."""
        values = {
            name: value.translated(templates) if isinstance(value, Message) else value
            for name, value in self.values.items()
        }
        return self._finished(templates.get(self.template, self.template).format(**values))

    @staticmethod
    def _finished(text: str) -> str:
        return text


class Sentence(Message):
    """A message that begins with a capital letter, whatever its first value is."""

    @staticmethod
    def _finished(text: str) -> str:
        return text[:1].upper() + text[1:]


NOTHING = Message("")


def sentences(parts: Iterable[str]) -> Message:
    """Join sentences that have no full stop, leaving out empty ones."""
    return _joined(parts, lambda one, other: Message("{one}. {other}", one=one, other=other))


def clauses(parts: Iterable[str]) -> Message:
    """Join the clauses of a sentence, leaving out empty ones."""
    return _joined(parts, lambda one, other: Message("{one}; {other}", one=one, other=other))


def lines(parts: Iterable[str]) -> Message:
    """Put texts below each other, leaving out empty ones."""
    return _joined(parts, lambda one, other: Message("{one}\n{other}", one=one, other=other))


def listed(parts: Iterable[str]) -> Message:
    """Join the entries of a list, leaving out empty ones."""
    return _joined(parts, lambda one, other: Message("{one}, {other}", one=one, other=other))


def _joined(parts: Iterable[str], join: Callable[[str, str], Message]) -> Message:
    messages = [part if isinstance(part, Message) else Message("{text}", text=part) for part in parts if part]
    return reduce(join, messages) if messages else NOTHING
