"""The core runs on Windows and macOS: what only POSIX systems have is absent here, or never named."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from sf_core.cli.environment import peak_memory

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path for name in ("sf_core", "nodes") for path in (ROOT / name).rglob("*.py"))
POSIX_MODULES = ("resource", "fcntl", "termios", "pwd", "grp", "posix", "pty", "tty", "syslog")
BLOCKED = ("resource", "fcntl", "termios", "pwd", "grp")
# A module that is None in sys.modules cannot be imported.
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED}))\n"
IMPORT_ALL = """
import importlib, pkgutil, sf_core
names = [module.name for module in pkgutil.walk_packages(sf_core.__path__, "sf_core.")]
for name in names:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
print(len(names))
"""
INFO = "import runpy; sys.argv = ['sf_core', 'info']; runpy.run_module('sf_core', run_name='__main__')"


def run_without_posix(code: str) -> str:
    command = [sys.executable, "-X", "warn_default_encoding", "-c", BLOCK + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_blocked_modules_cannot_be_imported() -> None:
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        run_without_posix("import resource")


def test_every_module_of_the_core_imports_without_posix() -> None:
    assert int(run_without_posix(IMPORT_ALL)) >= 40


def test_info_runs_without_posix() -> None:
    assert "torch " in run_without_posix(INFO)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_names_what_windows_lacks(path: Path) -> None:
    """Imports at module level, and members of os and signal anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {name for node in tree.body for name in imported(node)} & set(POSIX_MODULES)
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert not used & only_posix()


def imported(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {str(node.module)} if isinstance(node, ast.ImportFrom) and node.level == 0 else set()


def only_posix() -> set[str]:
    """Members of os and signal that Python's documentation marks "Availability: Unix"."""
    processes = "fork forkpty killpg setsid getuid geteuid getgid getpgid getloadavg uname sysconf wait3 wait4 nice"
    files = "chown lchown mkfifo statvfs posix_fadvise posix_fallocate sendfile pread pwrite sched_getaffinity"
    signals = "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGSTOP SIGCONT SIGQUIT alarm setitimer pause sigwait"
    return {f"os.{name}" for name in f"{processes} {files}".split()} | {f"signal.{name}" for name in signals.split()}


@pytest.mark.skipif(sys.platform != "linux", reason="looks the names up in Linux's os and signal")
def test_names_that_windows_lacks_are_spelled_as_python_has_them() -> None:
    modules = {"os": os, "signal": signal}
    assert [name for name in only_posix() if not hasattr(modules[name.split(".")[0]], name.split(".")[1])] == []


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(system: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``ru_maxrss`` is in KiB on Linux and in bytes on macOS."""
    fake = ModuleType("resource")
    vars(fake).update(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=5000))
    monkeypatch.setitem(sys.modules, "resource", fake)
    monkeypatch.setattr(sys, "platform", system)
    assert peak_memory() == 5000 * unit


def test_peak_memory_on_windows_is_psutils_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("psutil")
    vars(fake)["Process"] = lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=7))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setitem(sys.modules, "psutil", fake)
    assert peak_memory() == 7
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert peak_memory() is None


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc")
def test_peak_memory_is_what_linux_says() -> None:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    peak = peak_memory()
    assert peak is not None
    assert peak / 1024 == pytest.approx(kib, rel=0.01)
