"""What the Comfy registry asks of a pack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from PIL import Image

import sf_core

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEVER_REQUIRED = {"torch", "torchvision", "torchaudio", "flash-attn", "sageattention", "xformers", "triton"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in requirements}


def shipped() -> list[str]:
    """The files of the registry's archive: those that git tracks or would, without what .comfyignore leaves out."""
    pathspec = pytest.importorskip("pathspec")  # what comfy-cli reads .comfyignore with
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of the kind that comfy-cli takes
        left_out = pathspec.PathSpec.from_lines("gitwildmatch", (ROOT / ".comfyignore").read_text().splitlines())
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists() and not left_out.match_file(name)]


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
    editor = "comfyui-frontend-package"  # for the registry alone
    assert [one for one in PROJECT["project"]["dependencies"] if not one.startswith(editor)] == lines


def test_the_registry_reads_what_is_published() -> None:
    """Its tool reads pyproject.toml without setuptools: it must find the facts there."""
    parser = pytest.importorskip("comfy_cli.registry.config_parser")
    found = parser.extract_node_configuration(str(ROOT / "pyproject.toml"))
    assert found.project.name == "self-forcing"
    assert found.project.version == PROJECT["project"]["version"] == sf_core.__version__
    assert found.project.supported_comfyui_version == ">=0.3.75"
    assert found.project.supported_comfyui_frontend_version == ">=1.32.9"
    assert names(found.project.dependencies) == {"av", "einops", "numpy", "pillow", "safetensors", "tqdm"}


def test_the_archive_has_only_what_is_used() -> None:
    """A new file at the top is decided on: it is named here, or in .comfyignore."""
    loaded = {"__init__.py", "prestartup_script.py", "js", "locales", "nodes", "sf_core", "subgraphs", "workflows"}
    loaded |= {"requirements.txt", "pyproject.toml"}  # read by those who install the pack
    texts = {"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "docs", "icon.png"}
    assert {name.split("/")[0] for name in shipped()} == loaded | texts | {".comfyignore"}


def test_the_archive_is_small() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in shipped()}
    assert sum(sizes.values()) < 13 * 2**20
    large = {name for name, size in sizes.items() if size > 100 * 2**10}
    assert {name for name in large if not name.startswith("sf_core/tiny/")} == {
        "sf_core/verification/cases.safetensors"
    }
    assert sizes["sf_core/verification/cases.safetensors"] < 300 * 2**10


def test_an_installed_package_has_every_file() -> None:
    """setuptools takes folders with an __init__.py, and of other files those that match a pattern."""
    core = ROOT / "sf_core"
    files = [path for path in core.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    packages = {path.parent for path in files if path.name == "__init__.py"}
    assert {path.parent for path in files if path.suffix == ".py"} == packages
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    data = {path for folder in packages for pattern in patterns for path in folder.glob(pattern)}
    assert {path for path in files if path.suffix != ".py"} == data
    assert core / "py.typed" in data


def test_the_registry_finds_nothing_to_object_to(tmp_path: Path) -> None:
    """`comfy node validate`, which the registry runs on a pack before it takes it."""
    pytest.importorskip("comfy_cli")
    closed = "http://127.0.0.1:9"  # it asks nobody
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}  # it writes settings there
    done = subprocess.run(
        [Path(sys.executable).with_name("comfy"), "--skip-prompt", "--no-enable-telemetry", "node", "validate"],
        cwd=ROOT,
        env={**os.environ, **home, "HTTP_PROXY": closed, "HTTPS_PROXY": closed, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validating node configuration" in done.stdout
    found = re.findall(r"-->\s+(\S+?):\d+", done.stdout + done.stderr)
    assert [path for path in found if not path.startswith("tests/")] == []  # the archive has no tests
