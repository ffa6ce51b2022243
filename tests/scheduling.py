"""Distribution of the tests over the workers of pytest-xdist: `conftest.py` hands `ByServerOrFile` to its hook.

`--dist loadgroup` would do the same by a public mark, `xdist_group`. With pytest 9 it does not: xdist 3.8 appends the
group to `item._nodeid`, which pytest no longer reads, so every test is distributed by itself. `_split_scope` is the one
method of xdist that a scheduler of one's own overrides, as `LoadGroupScheduling` and `LoadFileScheduling` do.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

VERSION = re.compile(r"[\[-](\d+\.\d+\.\d+)[]-]")  # of ComfyUI, in the parameters of a test


def group(nodeid: str) -> str:
    """Return the tests that one worker runs together.

    The tests of one server, which starts once, in the worker that has them; otherwise the tests of one file, so that
    fixtures of a module are made once.
    """
    file, _, test = nodeid.partition("::")
    version = VERSION.search(test)
    return f"comfyui-{version[1]}" if version else file


class ByServerOrFile(LoadScopeScheduling):
    """Scheduler that keeps the tests of a server, and those of a file, in one worker.

    Groups start in the order of the folders: servers and browsers, which take the longest, come first, and many short
    files fill up the workers at the end.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
