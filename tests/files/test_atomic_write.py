"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from sf_core.files import atomic_write as module
from sf_core.files.atomic_write import ABANDONED, atomic_write, move_to_new, part_of, sweep_parts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with an old content, alone in its folder."""
    (tmp_path / "f.json").write_text("old")
    return tmp_path / "f.json"


def alone(path: Path) -> bool:
    return list(path.parent.iterdir()) == [path]


def write(path: Path, content: str, error: BaseException | None = None) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(content)
        if error is not None:
            raise error


@pytest.mark.parametrize("sync", [True, False])
def test_the_new_content_appears_at_the_end_of_the_block(path: Path, sync: bool) -> None:
    with atomic_write(path, sync) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert alone(path)


def test_a_link_stays_and_its_file_is_replaced(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("links") / "link.json"
    try:
        link.symlink_to(path)
    except OSError:
        pytest.skip("this system makes no links for this user")
    write(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert alone(path)
    assert alone(link)


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full")])
def test_after_an_error_the_old_content_stays_alone(path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        write(path, "new", error)
    assert caught.value is error
    assert path.read_text() == "old"
    assert alone(path)


def refuse(monkeypatch: pytest.MonkeyPatch, times: int) -> list[Path]:
    """Refuse to replace a file ``times`` times, as Windows does while another program has it open."""
    calls: list[Path] = []
    replace = Path.replace

    def replace_or_refuse(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) <= times:
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_or_refuse)
    monkeypatch.setattr(module, "FIRST_WAIT", 0.001)
    return calls


def test_a_file_that_another_program_closes_soon_is_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = refuse(monkeypatch, times=2)
    write(path, "new")
    assert len(calls) == 3
    assert path.read_text() == "new"


def test_a_file_that_another_program_keeps_open_is_an_error_that_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, times=100)
    with pytest.raises(PermissionError, match=r"If another program has it open, close it there.*f\.json"):
        write(path, "new")
    assert path.read_text() == "old"
    assert alone(path)


def test_two_programs_that_choose_one_name_do_not_lose_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With links, and on a file system without them."""
    for number in range(2):
        first, second, target = (tmp_path / f"{number}{name}" for name in "abc")
        first.write_text("first")
        second.write_text("second")
        move_to_new(first, target)
        with pytest.raises(FileExistsError):
            move_to_new(second, target)
        assert (target.read_text(), second.read_text(), first.exists()) == ("first", "second", False)
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EPERM, "no links here")))


def test_what_a_killed_program_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    killed, at_work, other = (
        part_of(tmp_path / "deep" / "a.session"),
        part_of(tmp_path / "b.session"),
        tmp_path / "c.part",
    )
    for file in (killed, at_work, other):
        file.touch()
    os.utime(killed, (0, time.time() - 2 * ABANDONED))
    os.utime(other, (0, 0))
    assert sweep_parts(tmp_path, "*.session") == [killed]
    assert sorted(file.name for file in tmp_path.rglob("*part")) == sorted([at_work.name, other.name])


def test_writers_of_one_file_do_not_disturb_each_other(path: Path) -> None:
    def write_number(number: int) -> None:
        with atomic_write(path, sync=False) as temporary:
            temporary.write_text(str(number) * 10_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_number, range(64)))
    assert path.read_text() in {str(number) * 10_000 for number in range(64)}
    assert alone(path)
