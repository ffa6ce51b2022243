"""Distribution of the tests over the workers of pytest-xdist: `conftest.py` hands `ByServerOrFile` to its hook.

`--dist loadgroup` would do the same by a public mark, `xdist_group`. With pytest 9 it does not: xdist 3.8 appends the
group to `item._nodeid`, which pytest no longer reads, so every test is distributed by itself. `_split_scope` is the one
method of xdist that a scheduler of one's own overrides, as `LoadGroupScheduling` and `LoadFileScheduling` do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

LONG = ("tests/comfyui/test_lesson.py",)  # files whose minutes are worth a server of their own
VERSION = re.compile(r"[\[-](\d+\.\d+\.\d+)[]-]")  # of ComfyUI, in the parameters of a test


def group(nodeid: str) -> str:
    """Return the tests that one worker runs together.

    The tests of one server, which starts once, in the worker that has them; otherwise the tests of one file, so that
    fixtures of a module are made once.
    """
    file, _, test = nodeid.partition("::")
    version = VERSION.search(test)
    return f"comfyui-{version[1]}" if version and file not in LONG else file


def longest_first(items: list[pytest.Item], servers: Sequence[Path]) -> None:
    """Sort tests by what takes the longest, so that no worker has a long file left when the others are done.

    The tests in the folders of ``servers`` come first, then files with slow tests, then the others.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        if any(item.path.is_relative_to(folder) for folder in servers):
            return 0
        return 1 if item.path in slow else 2

    items.sort(key=rank)  # stable: the tests of a file stay together and in order


class ByServerOrFile(LoadScopeScheduling):
    """Scheduler that keeps the tests of a server, and those of a file, in one worker.

    Groups start in the order of their first tests, see `longest_first`.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
