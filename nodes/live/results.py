"""Files that results point to which ComfyUI caches: a node whose file is gone runs again; old videos make room."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ...sf_core.byte_units import GIB
from ...sf_core.files import disk_budget
from ...sf_core.files.video import sidecar_of
from ..adapters import host
from ..adapters.running_prompt import executing_node, running_prompt

VIDEOS_BYTES = 32 * GIB
VIDEOS_KEPT = 1000
NEWEST_VIDEOS = 16  # stay whatever they take: as many runs as pages can show
Owner = tuple[str, str]  # class of a node, and its id
_owners: dict[Path, Owner] = {}  # the node whose result a file is
_used_by: dict[Path, str] = {}  # the prompt that made or used a video last
_times_lost: Counter[Owner] = Counter()


def new_video(stem: str) -> Path:
    """Return a path for a video in the temporary folder, and delete older ones if they exceed the disk's budget."""
    old = [video for video in host.temp_path().glob("*.mp4") if _used_by.get(video) != running_prompt().prompt_id]
    disk_budget.trim(old, VIDEOS_BYTES, VIDEOS_KEPT, always=NEWEST_VIDEOS, remove=_delete_video)
    video = host.new_temp_file(stem, ".mp4")
    _used_by[video] = running_prompt().prompt_id
    return video


def _delete_video(video: Path) -> None:
    disk_budget.delete(video)
    disk_budget.delete(sidecar_of(video))
    _used_by.pop(video, None)


def remember(node: Any, file: Path) -> None:
    """Remember that the result of a node's class, which is executed now, points to ``file``."""
    _owners[file] = (node.__name__, executing_node())


def times_lost(node: Any) -> int:
    """Return a fingerprint that changes when a file of a node's results is gone, so that ComfyUI makes it again.

    Args:
        node: The node's class, which is asked for its fingerprint.
    """
    asked = (node.__name__, executing_node())
    for file, owner in list(_owners.items()):
        if owner != asked:
            continue
        if not file.exists():
            del _owners[file]
            _times_lost[asked] += 1
        elif file in _used_by:
            _used_by[file] = running_prompt().prompt_id
    return _times_lost[asked]
