"""Files that results point to which ComfyUI caches: a node whose file is gone runs again; old videos make room."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ...sf_core.byte_units import GIB
from ...sf_core.files import disk_budget
from ...sf_core.files.video import sidecar_of
from ..adapters import host
from ..adapters.running_prompt import running_prompt

VIDEOS_BYTES = 32 * GIB
VIDEOS_KEPT = 1000
NEWEST_VIDEOS = 16  # stay whatever they take: as many runs as pages can show
Owner = tuple[str, str | None]  # class of a node, and its id
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
    _owners[file] = (node.__name__, host.node_id_of(node))


def times_lost(node: Any) -> int:
    """Return a fingerprint that changes when a file of a node's results is gone, so that ComfyUI makes it again.

    Args:
        node: The node's class, which is asked for its fingerprint. Where ComfyUI does not say for which node, the
            files of all nodes of this class count.
    """
    kind, node_id = node.__name__, host.node_id_of(node)
    for file, owner in list(_owners.items()):
        if owner[0] != kind or node_id not in (None, owner[1]):
            continue
        if not file.exists():
            del _owners[file]
            _times_lost[owner] += 1
        elif node_id is not None and file in _used_by:
            _used_by[file] = running_prompt().prompt_id
    return sum(times for owner, times in _times_lost.items() if owner[0] == kind and node_id in (None, owner[1]))
