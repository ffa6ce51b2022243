"""Names of files to write: faults are found on every system, before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sf_core.files import file_names
from sf_core.files.atomic_write import part_of
from sf_core.files.file_names import check_new_file, is_plain_name, name_from, windows_name_fault


@pytest.mark.parametrize(
    "path",
    [
        "video.mp4",
        r"C:\Users\ann\take 2\video.mp4",
        "D:/videos/.hidden",
        r"\\server\share\v.mp4",
        r"..\out\a.b.c",
        "./v.mp4",
        "console.txt",
        "com10",
        "视频.mp4",
    ],
)
def test_names_that_windows_can_store_pass(path: str) -> None:
    assert windows_name_fault(path) is None


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("take:2.mp4", "'take:2.mp4' contains ':'"),
        ("what?*.mp4", "contains '*' '?'"),
        ("a\tb", r"contains '\t'"),
        (r"C:\videos\nul", "'nul' is the name of a device"),
        ("CON.mp4", "'CON.mp4' is the name of a device"),
        ("com1 .tar.gz", "is the name of a device"),
        ("aux/v.mp4", "'aux' is the name of a device"),
        ("LPT².txt", "is the name of a device"),
        ("video.", "ends in a dot"),
        ("folder /v.mp4", "ends in a space"),
    ],
)
def test_names_that_windows_cannot_store_are_explained(path: str, fault: str) -> None:
    assert fault in str(windows_name_fault(path))


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_new_file(tmp_path / "v.mp4")
    check_new_file(tmp_path / "later" / "v.mp4", needs_folder=False)
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        check_new_file(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="is a device or a pipe, not a file"):
            check_new_file(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"there is no folder .*later; make it first"):
        check_new_file(tmp_path / "later" / "v.mp4")
    for windows in (False, True):
        monkeypatch.setattr(file_names, "WINDOWS", windows)
        if not windows:
            check_new_file(tmp_path / "a:b")
            continue
        with pytest.raises(ValueError, match="which Windows does not allow in names; choose another name"):
            check_new_file(tmp_path / "a:b")


@pytest.mark.parametrize(
    "name",
    [
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
        "\u09ac\u09be\u0982\u09b2\u09be",
        "\u753b",
        "a_1",
        "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627",
    ],
)
def test_names_in_every_script_are_plain(name: str) -> None:
    assert is_plain_name(name, "")
    assert not is_plain_name(f"{name}/", "")
    assert not is_plain_name("", "")


def test_a_name_too_long_for_a_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is too long a name: 300 bytes, expected at most"):
        check_new_file(tmp_path / ("n" * 300))
    with pytest.raises(ValueError, match="is too long a name"):
        check_new_file(tmp_path / ("\u753b" * 80))
    with pytest.raises(ValueError, match="number 0"):
        check_new_file(tmp_path / "a\0b")
    with pytest.raises(ValueError, match="half a character; choose another name"):
        check_new_file(tmp_path / "a\ud83d")


def test_the_longest_name_leaves_room_for_temporary_names(tmp_path: Path) -> None:
    path = tmp_path / ("n" * file_names.MAX_NAME_BYTES)
    check_new_file(path)
    part_of(part_of(path)).touch()  # a session is written whole, and then moved to a name that no file has


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a red circle, moving/left: on a black background", "a red circle moving left on a"),
        (
            "  一只猫在雪地里奔跑\uff0c镜头缓慢推进\uff0c然后它停下来回头看着我们\uff0c阳光照在雪上闪闪发光",
            "一只猫在雪地里奔跑 镜头缓慢推进",
        ),
        ("猫" * 40, "猫" * 20),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("../../etc/passwd", "etc passwd"),
        ("con", "con-"),
        ("?! ... 🦊", ""),
        ("e\u0301te\u0301 2026", "été 2026"),
    ],
)
def test_the_words_of_any_text_make_a_name_for_a_file(text: str, name: str) -> None:
    made = name_from(text, "-", 30, 60)
    assert made == name
    assert len(made) <= 30
    assert len(made.encode()) <= 60
    assert not made or (is_plain_name(made, " -") and windows_name_fault(made) is None)
