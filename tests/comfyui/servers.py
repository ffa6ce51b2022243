"""The real servers of a test run: each is started once, in the worker that has its tests, and stopped at its end."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tools.comfyui import find
from tools.comfyui.server import PACK, Server

VERSIONS = find.versions()  # role -> version
PROBES = Path(__file__).parent / "probe_pack"

_started: dict[str, Server] = {}
_missing: dict[str, str] = {}
_folders = contextlib.ExitStack()


def parameters() -> list[ParameterSet]:
    return [pytest.param(role, id=version) for role, version in VERSIONS.items()]


def group(nodeid: str) -> str:
    """The tests of one server stay in one worker, and those of runs of several processes, which a module makes once;
    every other test goes where there is time."""
    if "parallel" in nodeid.split("::")[0]:
        return nodeid.split("::")[0]
    for version in VERSIONS.values():
        if re.search(rf"[\[-]{re.escape(version)}[]-]", nodeid):
            return f"comfyui-{version}"
    return nodeid


def _find(role: str) -> find.Checkout | None:
    if role not in _missing:
        try:
            return {"primary": find.primary, "latest": find.latest}[role]()
        except find.Unavailable as error:
            _missing[role] = str(error)
    return None


def get(role: str) -> Server:
    """Skips where there is no such server, and fails where there is none at all: no green run without ComfyUI."""
    if role in _started:
        return _started[role]
    checkout = _find(role)
    if checkout is None:
        if not any(_find(other) for other in VERSIONS):
            pytest.fail(f"no real ComfyUI at all: {_missing}", pytrace=False)
        pytest.skip(f"real server {VERSIONS[role]}: not run: {_missing[role]}")
    base = Path(_folders.enter_context(tempfile.TemporaryDirectory(prefix=f"comfyui-{checkout.version}-")))
    packs = {PACK: find.ROOT, "probe_pack": PROBES}
    with contextlib.suppress(find.Unavailable):  # said by the test that needs it
        packs["ComfyUI-GGUF"] = find.gguf_loader()
    server = Server(checkout, base, packs=packs, threads=1)
    _started[role] = server.start()
    return server


def stop_all() -> None:
    while _started:
        _started.popitem()[1].stop()
    _folders.close()
