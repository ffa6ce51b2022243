"""The pure modules of the editor's extension, in node's own test runner."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "js"
FILES = sorted(path.name for path in FOLDER.glob("*.test.js"))


def test_there_are_some() -> None:
    assert len(FILES) >= 5


@pytest.mark.parametrize("name", FILES)
def test_javascript(name: str) -> None:
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        if os.environ.get("SF_WITHOUT_NODE"):
            pytest.skip("JavaScript: not run: there is no node")
        pytest.fail("there is no node (SF_WITHOUT_NODE=1 does without)", pytrace=False)
    ran = subprocess.run([node, "--test", str(FOLDER / name)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    assert "# pass 0" not in ran.stdout
