"""Ranges of numbers that people set: the same for the command line, the nodes and the library."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any


@dataclass(frozen=True)
class Range:
    """The numbers from ``least`` to ``most``.

    Attributes:
        least: The smallest one.
        most: The largest one.
        whole: Whether only whole numbers are meant.
        above: Whether ``least`` itself is not one of them.
        words: The range in a message; "": it is made of the numbers.
    """

    least: float
    most: float
    whole: bool = False
    above: bool = False
    words: str = ""

    def check(self, name: str, value: Any) -> None:
        """Check a value.

        Raises:
            ValueError: It is no number, NaN or out of range; the message says ``name``, value and range.
        """
        if not self.holds(value):
            raise ValueError(f"{name} is {_short(value)}; expected {self}")

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is a number of the range."""
        if not isinstance(value, Real):  # numpy's numbers are such, too
            return False
        number: Any = value
        within = self.least <= number <= self.most and not (self.above and number == self.least)  # NaN is in none
        return bool(within and (not self.whole or number == int(number)))

    def __str__(self) -> str:
        least, most = _short(self.least), _short(self.most)
        if self.above:
            return f"more than {least}, and at most {most}"
        return self.words or f"a {'whole ' * self.whole}number from {least} to {most}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
        if isinstance(value, float):
            text = f"{value:,.0f}" if value.is_integer() and abs(value) < 1e12 else f"{value:g}"
    except ValueError:  # Python writes no whole number of so many digits
        text = "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:37]}..."


FPS = Range(1.0, 240.0, words="more than 0: 1 to 240 frames per second")
PIXELS = Range(16, 8192, whole=True)  # width or height of a video
SECONDS = Range(0.0, 86400.0 * 365)  # of a video to make; where 0 means until stopped
LENGTH = Range(0.0, SECONDS.most, above=True)  # the same, where 0 means nothing
