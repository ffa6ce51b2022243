"""Ranges of numbers that people set: the same for the command line, the nodes and the library."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any


@dataclass(frozen=True)
class Range:
    """The numbers from ``least`` to ``most``, both included; ``whole`` ones only if so set."""

    least: float
    most: float
    whole: bool = False

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
        return bool(self.least <= number <= self.most and (not self.whole or number == int(number)))  # NaN is in none

    def __str__(self) -> str:
        return f"a {'whole ' * self.whole}number from {_short(self.least)} to {_short(self.most)}"


def _short(value: Any) -> str:
    try:
        text = f"{value:g}" if isinstance(value, float) else repr(value)
    except ValueError:  # Python writes no whole number of so many digits
        text = "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:37]}..."


FPS = Range(1.0, 240.0)
PIXELS = Range(16, 8192, whole=True)  # width or height of a video
SECONDS = Range(0.0, 86400.0 * 365)  # of a video to make
