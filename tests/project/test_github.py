"""GitHub's workflows and forms: what they may do, in which order, and that what they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
SYSTEM_PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


def read(path: Path) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert "concurrency" in workflow


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_say_their_version(path: Path) -> None:
    """A tag can be moved to other code; a commit cannot."""
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert action.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_nothing_is_published_before_all_tests_have_passed() -> None:
    jobs = read(GITHUB / "workflows" / "publish.yml")["jobs"]
    assert jobs["publish"]["needs"] == "tests"
    assert "if" not in jobs["publish"]  # always() would publish after a failure too
    assert jobs["tests"]["uses"] == "./.github/workflows/tests.yml"
    assert jobs["tests"]["needs"] == "version"
    assert [name for name, job in jobs.items() if "secrets." in str(job)] == ["publish"]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="the script runs on Linux")
def test_only_a_changed_version_is_published(tmp_path: Path) -> None:
    (step,) = (s for s in read(GITHUB / "workflows" / "publish.yml")["jobs"]["version"]["steps"] if "id" in s)
    git(tmp_path, "init", "-q")
    commits = []
    for version, rest in (("0.1.0", ""), ("0.1.0", "line = 1"), ("0.2.0", "line = 1")):
        (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n{rest}\n', encoding="utf-8")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-qm", version)
        commits.append(git(tmp_path, "rev-parse", "HEAD"))

    def is_new(now: str, before: str, event: str = "push") -> bool:
        git(tmp_path, "checkout", "-q", now)
        output = tmp_path / "output"
        output.write_text("", encoding="utf-8")
        variables = {"EVENT": event, "BEFORE": before, "GITHUB_OUTPUT": str(output), "PATH": SYSTEM_PATH}
        command = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
        subprocess.run(command, cwd=tmp_path, env=variables, check=True, capture_output=True)
        return output.read_text(encoding="utf-8") == "new=true\n"

    first, same, newer = commits
    assert not is_new(same, before=first)
    assert is_new(newer, before=same)
    assert is_new(newer, before=first)
    assert not is_new(newer, before="0" * 40)
    assert is_new(same, before="", event="workflow_dispatch")


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    pages = [ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", GITHUB / "pull_request_template.md", *WORKFLOWS]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`|run: |test )make ([a-z][\w-]*)", text, re.M))
        assert named <= targets, page.name


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "AGENTS.md", "SECURITY.md"])
def test_every_file_that_a_page_names_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([\w./-]+)\)", text)
    folders = "sf_core|nodes|js|tests|docs|locales|workflows|tools|\\.github"
    quoted = re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    modules = [f"{module.replace('.', '/')}.py" for module in re.findall(r"python -m (tools[\w.]+)", text)]
    assert [path for path in (*linked, *quoted, *modules) if not (ROOT / path).exists()] == []


def test_a_bug_report_has_what_is_needed_to_look_into_it() -> None:
    form = read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")
    required = {f["id"] for f in form["body"] if f.get("validations", {}).get("required")}
    assert {"what", "info", "comfyui", "gpu", "log"} <= required
    assert "memory" in {field["id"] for field in form["body"]}
    assert "python -m sf_core info" in str(form)
