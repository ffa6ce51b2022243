"""The real servers of a test run: each starts once in each worker that needs it, and stops with the worker."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest

from tools.comfyui import checkout
from tools.comfyui.server import PACK, Server

VERSIONS = checkout.versions()  # role -> version
PROBES = Path(__file__).parent / "probe_pack"

started: dict[str, Server] = {}
missing: dict[str, str] = {}  # role -> why there is no server
_folders = contextlib.ExitStack()


def _find(role: str) -> checkout.Checkout | None:
    if role not in missing:
        try:
            return {"primary": checkout.primary, "latest": checkout.latest}[role]()
        except checkout.Unavailable as error:
            missing[role] = str(error)
    return None


def get(role: str, config: pytest.Config) -> Server:
    """Return the server of a role, started.

    The test is skipped if this server cannot run here, and fails if no server can: no green run without ComfyUI.
    """
    if role in started:
        return started[role]
    found = _find(role)
    if found is None:
        if not any(_find(other) for other in VERSIONS):
            pytest.fail(f"no real ComfyUI at all: {missing}", pytrace=False)
        pytest.skip(f"real server {VERSIONS[role]}: not run: {missing[role]}")
    base = Path(_folders.enter_context(tempfile.TemporaryDirectory(prefix=f"comfyui-{found.version}-")))
    packs = {PACK: checkout.ROOT, "probe_pack": PROBES}
    with contextlib.suppress(checkout.Unavailable):  # the test that needs it says so
        packs["ComfyUI-GGUF"] = checkout.gguf_loader()
    if not started:
        config.add_cleanup(stop_all)
    cache = {
        "XDG_CACHE_HOME": str(base / "cache"),
        "LOCALAPPDATA": str(base / "cache"),
    }  # what was measured of this machine
    started[role] = Server(found, base, packs=packs, threads=1, environment=cache).start()
    return started[role]


def stop_all() -> None:
    """Stop all servers and remove their folders."""
    while started:
        started.popitem()[1].stop()
    _folders.close()


@pytest.fixture(scope="session", params=list(VERSIONS), ids=list(VERSIONS.values()))
def server(request: pytest.FixtureRequest) -> Server:
    """The real ComfyUI, with the pack and the probe nodes; a test that takes it runs on each version."""
    return get(request.param, request.config)
