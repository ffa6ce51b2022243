"""Waiting for a condition, in place of a sleep that a busy machine outlasts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], what: str, seconds: float = 120) -> Value:
    """Ask again and again until ``condition`` gives a true value, and return it.

    Args:
        condition: Takes little time; what it looks at is changed by another thread or process.
        what: The condition in words, for the error.
        seconds: Far more than it takes on a busy machine: only a failure waits so long.

    Raises:
        TimeoutError: The condition stayed false.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)
    return value
