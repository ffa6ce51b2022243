"""What a killed ComfyUI left in its temporary folder is there again after its start."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LEFTOVERS: dict[str, Any] = runpy.run_path(str(ROOT / "nodes" / "adapters" / "leftovers.py"))


def write(folder: Path, *names: str, content: str = "before") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_sessions_chunks_and_videos_outlive_the_wipe_and_nothing_else_does(tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    names = ["interrupted/a.session", "interrupted/a.jpg", "chunks/b.safetensors", "stream-1.mp4"]
    write(temp / "self_forcing", *names, "unfinished/killed.session", "live/c.jpegs", "archive/d")
    names.append("interrupted/killed.session")
    write(temp, "others.png")
    LEFTOVERS["set_aside"](temp)
    assert contents(temp) == {"others.png": "before"}
    assert LEFTOVERS["put_back"](temp) == len(names)
    assert contents(temp / "self_forcing") == dict.fromkeys(names, "before")
    assert list(tmp_path.iterdir()) == [temp]
    assert LEFTOVERS["put_back"](temp) == 0


def test_a_start_that_failed_half_way_loses_nothing(tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    write(temp / "self_forcing", "interrupted/a.session", "chunks/b")
    LEFTOVERS["set_aside"](temp)  # and the pack was not loaded
    write(temp / "self_forcing", "interrupted/b.session", "chunks/b", content="after")
    LEFTOVERS["set_aside"](temp)
    write(temp / "self_forcing", "interrupted/c.session", content="after")
    LEFTOVERS["put_back"](temp)
    found = contents(temp / "self_forcing")
    assert {name: found[name] for name in sorted(found)} == {
        "chunks/b": "before",
        "interrupted/a.session": "before",
        "interrupted/b.session": "after",
        "interrupted/c.session": "after",
    }
