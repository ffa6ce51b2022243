"""What a disk cannot take is said before the work."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from sf_core.files import disk, disk_budget

Usage = namedtuple("Usage", "total used free")


def test_files_that_together_do_not_fit_their_disk_are_refused_in_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 * 2**30, 9 * 2**30, 2**30))
    disk.check_room({tmp_path / "a": 2**29, tmp_path / "b": 2**29})
    with pytest.raises(OSError, match=r"a and .*b will take about 1.5 GiB, and the disk has 1.0 GiB free"):
        disk.check_room({tmp_path / "a": 2**30, tmp_path / "b": 2**29})


def test_a_folder_is_made_and_tried_without_a_trace(tmp_path: Path) -> None:
    disk.make_folder(tmp_path / "deep" / "er")
    assert not list((tmp_path / "deep" / "er").iterdir())
    assert disk.free_bytes(tmp_path / "not" / "there") > 0
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError, match=r"no file can be made in .*: .*file is a file, not a folder. Name another folder"
    ):
        disk.make_folder(tmp_path / "file" / "deep")


def test_temporary_files_keep_to_a_quarter_of_the_free_space_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / str(age) for age in range(8)]  # the newest first
    for age, file in enumerate(files):
        file.write_bytes(bytes(100))
        os.utime(file, (0, 1000 - age))

    def left(free: int, **limits: Any) -> int:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**6, 0, free))
        disk_budget.trim(tmp_path.iterdir(), **{"limit": 10**6, "most": 100, **limits})
        rest = sorted(int(file.name) for file in tmp_path.iterdir())
        assert rest == list(range(len(rest)))
        return len(rest)

    assert left(free=10**6) == 8
    assert left(free=10**6, limit=700) == 7
    assert left(free=1900, most=6) == 6  # (1900 + 700) / 4 would hold six
    assert left(free=1000) == 4
    assert left(free=0, always=2) == 2
    assert left(free=0) == 1  # the newest stays
