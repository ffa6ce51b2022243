"""Requests to the routes of the sessions panel, and sessions for them to list."""

from __future__ import annotations

import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.comfyui.graphs import BLUE, Graph, Tiny
from tests.waiting import wait_until
from tools.comfyui.server import Server

LIST, KEEP, DELETE = (f"/self_forcing/sessions{tail}" for tail in ("", "/keep", "/delete"))
KEEP_FILE, RENAME = "/self_forcing/keep", "/self_forcing/sessions/rename"
save_numbers = itertools.count(1)  # the same graph again would save nothing
http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Send a request; return the status and the answer."""
    request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json", **headers})
    try:
        with http.open(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def post(server: Server, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    """Post a JSON object; return the status and the answer."""
    return ask(server, path, json.dumps(body).encode())


def entries(server: Server) -> list[dict[str, Any]]:
    """Return the list of sessions."""
    found: list[dict[str, Any]] = server.get(LIST)["sessions"]
    return found


def entry(server: Server, name: str) -> dict[str, Any]:
    """Return the entry of one session."""
    return next(one for one in entries(server) if one["name"] == name)


def folder(server: Server) -> Path:
    """Return the folder of saved sessions."""
    return server.base / "output" / "sessions"


def saved(server: Server, name: str, chunks: int = 2) -> str:
    """Sample and save a session; return its name in Load Session."""
    graph = Graph()
    tiny = Tiny.of(graph)
    session = tiny.sampled(tiny.session(BLUE), chunks)
    prefix = f"sessions/{name} {next(save_numbers)}"
    number = graph("SFSaveSession", session=session, filename_prefix=prefix).number
    path = Path(name).parent / server.run(graph.prompt)[number]["text"][0].split(":")[0]
    return str(path)


@contextmanager
def endless(server: Server) -> Iterator[str]:
    """Run a stream without an end; yield the number of its node."""
    graph = Graph()
    tiny = Tiny.of(graph)
    seed = time.monotonic_ns() % 2**40  # no chunk of it is cached
    node = graph("SFStreamVideo", session=tiny.session(BLUE, seed=seed), vae=tiny.vae, seconds=0.0, fps=16.0).number
    run = server.submit(graph.prompt)
    try:
        wait_until(lambda: any(one["kind"] == "live" and one["frames"] for one in entries(server)), "a live run")
        yield node
    finally:
        server.settle()
        assert server.get(f"/history/{run}")


def tree(server: Server) -> dict[str, tuple[int, int]]:
    """Return size and time of every file that a request could have changed."""
    found = {}
    for top in ("output", "temp", "input", "models", "user"):
        for path in (server.base / top).rglob("*"):
            if path.is_file() and "comfy.settings" not in path.name:
                found[str(path)] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def offered(server: Server) -> list[str]:
    """Return the names that Load Session offers."""
    names: list[str] = server.object_info()["SFLoadSession"]["input"]["required"]["file"][1].get("options", [])
    return names
