"""The pure modules of the editor's extension, in node's own test runner."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from sf_core.byte_units import format_bytes

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "js"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.test.js"))


def test_there_are_some() -> None:
    assert len(FILES) >= 5


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node") or shutil.which("nodejs")
    if found is None:
        if os.environ.get("SF_WITHOUT_NODE"):
            pytest.skip("JavaScript: not run: there is no node")
        pytest.fail("there is no node (SF_WITHOUT_NODE=1 does without)", pytrace=False)
    return found


@pytest.mark.parametrize("name", FILES)
def test_javascript(node: str, name: str) -> None:
    ran = subprocess.run([node, "--test", str(FOLDER / name)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    assert "# pass 0" not in ran.stdout


FORMAT = """
import { formatBytes } from "MODULE";
import { readFileSync } from "node:fs";
console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(formatBytes)));
"""


def test_a_size_reads_the_same_in_python_and_in_javascript(node: str) -> None:
    draw = random.Random(0)
    halves = [odd * 2**power * 25 // 4 for odd in range(100) for power in range(33)]
    sizes = [*halves, *(draw.randrange(2 ** draw.randrange(1, 45)) for _ in range(5000))]
    script = FORMAT.replace("MODULE", (ROOT / "js" / "lib" / "format.js").as_uri())
    command = [node, "--input-type=module", "--eval", script]
    ran = subprocess.run(command, input=json.dumps(sizes), capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(ran.stdout) == [format_bytes(size) for size in sizes]
