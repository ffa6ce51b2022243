"""What the pack may not do, in a folder that is called like the pack's."""

from __future__ import annotations

from typing import Any


def read_weight(module: Any) -> Any:
    return module.weight
