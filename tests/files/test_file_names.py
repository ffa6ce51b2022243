"""Names that Windows takes for something else are refused there, and nowhere else."""

from __future__ import annotations

import pytest

from sf_core.files.file_names import check_file_name


@pytest.mark.parametrize(
    "name",
    ["a:b", "what?", "con", "sessions/NUL", "aux.session", "com7/x", "end.", "folder /x", "a\\b|c", "tab\t", 'q"'],
)
def test_a_name_that_windows_reserves_is_refused_there(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a file on Windows"):
        check_file_name(name, windows=True)
    check_file_name(name, windows=False)


@pytest.mark.parametrize(
    "name", ["sessions/session", "a b/c-d_e.f", "..\\x", "content", "com", "com10", "视频", "", "a//b", "./x"]
)
def test_every_other_name_is_accepted(name: str) -> None:
    check_file_name(name, windows=True)
