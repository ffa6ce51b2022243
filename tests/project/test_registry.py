"""What the Comfy registry asks of a pack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEVER_REQUIRED = {"torch", "torchvision", "torchaudio", "flash-attn", "sageattention", "xformers", "triton"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in requirements}


def test_the_project_can_be_published() -> None:
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert "comfyui" not in project["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == "Apache-2.0"
    assert project["urls"]["Repository"].startswith("https://github.com/")
    assert comfy["DisplayName"] == "Self Forcing"
    assert comfy["PublisherId"]
    assert comfy["requires-comfyui"] == ">=0.3.75"
    assert "web" not in comfy  # __init__.py says where the JavaScript is


def test_the_icon_is_square_and_small() -> None:
    assert PROJECT["tool"]["comfy"]["Icon"].endswith("/icon.png")
    with Image.open(ROOT / "icon.png") as icon:
        assert icon.width == icon.height <= 400


def test_what_comfyui_has_is_not_installed_over_it() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert not names(lines) & NEVER_REQUIRED
    editor = {"comfyui-frontend-package"}  # for the registry alone
    assert names(PROJECT["project"]["dependencies"]) - editor == names(lines)


def test_the_archive_has_only_what_is_used() -> None:
    left_out = set((ROOT / ".comfyignore").read_text().split())
    assert {"tests/", "tools/", "benchmarks/", ".github/", "package.json", "package-lock.json"} <= left_out
    assert not left_out & {"js/", "locales/", "nodes/", "sf_core/", "workflows/", "__init__.py", "requirements.txt"}


def test_the_registry_finds_nothing_to_object_to() -> None:
    pytest.importorskip("comfy_cli")
    closed = "http://127.0.0.1:9"  # it asks nobody
    done = subprocess.run(
        [Path(sys.executable).with_name("comfy"), "--skip-prompt", "node", "validate"],
        cwd=ROOT,
        env={**os.environ, "HTTP_PROXY": closed, "HTTPS_PROXY": closed, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"-->\s+(\S+?):\d+", done.stdout + done.stderr)
    assert [path for path in found if not path.startswith("tests/")] == []  # the archive has no tests
