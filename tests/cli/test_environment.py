"""``info`` without a file gives the facts of a bug report, and the version has one source."""

from __future__ import annotations

import getpass
import platform
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sf_core
from sf_core._version import NAME, read_version
from sf_core.cli.environment import environment_report

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lines(report: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in report.splitlines())


def test_the_report_has_what_a_bug_report_needs() -> None:
    facts = lines(environment_report())
    assert facts["self-forcing"] == PROJECT["version"]
    assert facts["Python"] == platform.python_version()
    assert facts["torch"].startswith(torch.__version__)
    assert "sdpa" in facts["attention"]
    assert "safetensors" in facts["packages"]


def test_the_report_names_no_path_and_no_user() -> None:
    report = environment_report()
    assert str(Path.home()) not in report
    assert platform.node() not in report
    assert getpass.getuser() not in report.split()


def test_the_report_names_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="A card", total_memory=24 * 2**30, major=8, minor=9)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    facts = lines(environment_report())
    assert facts["cuda:0"] == facts["cuda:1"] == "A card, 24.0 GiB VRAM, compute capability 8.9"


def test_the_version_is_pyprojects() -> None:
    assert sf_core.__version__ == PROJECT["version"]
    assert PROJECT["name"] == NAME


@pytest.mark.parametrize(
    "content", [None, "", "not TOML [", "[project]\nname = 'another'\nversion = '9.9.9'", "project = 3"]
)
def test_a_copy_without_a_pyproject_of_its_own_still_imports(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none, or a broken one, or another project's, as site-packages may have it."""
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content, encoding="utf-8")
    monkeypatch.setattr("sf_core._version.NAME", "self-forcing-that-nobody-installed")
    assert read_version(tmp_path / "pyproject.toml") == "unknown"


def test_an_installed_package_has_the_version_of_its_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "self_forcing-3.2.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: self-forcing\nVersion: 3.2.1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read_version(tmp_path / "pyproject.toml") == "3.2.1"
