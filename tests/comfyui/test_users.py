"""With --multi-user a run is its user's: nobody else sees it, steers it, or gets its frames."""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.graphs import RED, Graph, Tiny
from tools.comfyui import checkout
from tools.comfyui.server import Server


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory() as base,
        Server(checkout.primary(), Path(base), arguments=["--multi-user"], threads=1) as server,
    ):
        yield server


def ask(server: Server, path: str, user: str | None, body: Any = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", **({"comfy-user": user} if user else {})}
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(server.url + path, data, headers), timeout=30) as answer:
            content = answer.read()
            return answer.status, json.loads(content) if content[:1] in (b"{", b'"') else content
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_run_and_its_frames_are_its_users_alone(shared: Server) -> None:
    mine, other = (ask(shared, "/users", None, {"username": name})[1] for name in ("mine", "other"))
    graph = Graph()
    tiny = Tiny.of(graph)
    node = graph("SFStreamVideo", session=tiny.session(RED), vae=tiny.vae, seconds=0.0, fps=16.0, clip=tiny.clip).number
    with shared.events("of mine") as events, shared.events("of other") as others:
        assert ask(shared, "/self_forcing/attach", mine, {"client_id": "of mine"})[0] == 200
        assert ask(shared, "/self_forcing/attach", other, {"client_id": "of other"})[0] == 200
        shared.submit(graph.prompt, client_id="of mine")
        sent = events.wait_for(lambda e: e.kind == "self_forcing.frames" and e.data["chunk"] == 1).data
        frame = f"/self_forcing/frames/{sent['run']}/0"
        assert ask(shared, frame, mine)[0] == 200
        assert ask(shared, frame, other)[0] == 404
        assert ask(shared, "/self_forcing/attach", other, {"client_id": "of other"})[1] == {"runs": []}
        stop = {"node_id": node, "action": "stop"}
        keep = {"node_id": node, "name": "taken"}
        assert ask(shared, "/self_forcing/steer", other, stop)[0] == 404
        assert ask(shared, "/self_forcing/sessions/keep", other, keep)[0] == 404
        assert not [one for one in ask(shared, "/self_forcing/sessions", other)[1]["sessions"] if one["kind"] == "live"]
        assert ask(shared, "/self_forcing/steer", "nobody", stop)[0] == 400
        assert ask(shared, "/self_forcing/steer", mine, stop)[0] == 200
        events.wait_for_end()
    assert not [event for event in others.all if event.kind.startswith("self_forcing.")]
