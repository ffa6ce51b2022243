"""With --multi-user a run is its user's: nobody else sees it, steers it, or gets its frames."""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.graphs import RED, Graph, Tiny
from tools.comfyui import checkout
from tools.comfyui.events import Event
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


def queue(server: Server, graph: Graph, user: str | None, client: str) -> str:
    """Queue a graph as a page of ``user`` does; None: as a program that names no user."""
    status, answer = ask(server, "/prompt", user, {"prompt": graph.prompt, "client_id": client})
    assert status == 200, answer
    return str(answer["prompt_id"])


def outputs(server: Server, prompt: str, number: str) -> dict[str, Any]:
    found: dict[str, Any] = server.wait(prompt)["outputs"][number]
    return found


def listed(server: Server, user: str) -> dict[str, dict[str, Any]]:
    status, answer = ask(server, "/self_forcing/sessions", user)
    assert status == 200
    return {entry["name"]: entry for entry in answer["sessions"]}


def offered(server: Server, user: str) -> list[str]:
    info = ask(server, "/object_info/SFLoadSession", user)[1]["SFLoadSession"]["input"]["required"]["file"]
    names: list[str] = info[1]["options"] if isinstance(info[0], str) else info[0]
    return names


def test_saved_and_interrupted_sessions_and_their_pictures_are_their_users_alone(shared: Server) -> None:
    ann, bob = (ask(shared, "/users", None, {"username": name})[1] for name in ("ann", "bob"))
    graph = Graph()
    tiny = Tiny.of(graph)
    made = graph("SFStreamVideo", session=tiny.session(RED), vae=tiny.vae, seconds=0.5, fps=16.0)
    saving = graph("SFSaveSession", session=made[1], filename_prefix="sessions/anns").number
    name = outputs(shared, queue(shared, graph, ann, "of ann"), saving)["text"][0].split(":")[0]
    endless = Graph()
    tiny = Tiny.of(endless)
    node = endless("SFStreamVideo", session=tiny.session(RED, seed=3), vae=tiny.vae, seconds=0.0, fps=16.0).number
    with shared.events("of ann") as events:
        run = queue(shared, endless, ann, "of ann")
        events.wait_for(lambda e: e.kind == "self_forcing.run" and e.data["node_id"] == node and e.data["chunk"] >= 2)
        status, kept = ask(shared, "/self_forcing/sessions/keep", ann, {"node_id": node, "name": "kept"})
        assert status == 200
        shared.interrupt()
        events.wait_for(lambda e: e.kind == "execution_interrupted" and e.data["prompt_id"] == run)

    anns = listed(shared, ann)
    interrupted = next(one for one, entry in anns.items() if entry["kind"] == "interrupted")
    assert {name, kept["name"]} < set(anns)
    assert set(offered(shared, ann)) == set(anns)
    assert listed(shared, bob) == {}
    assert not set(anns) & set(offered(shared, bob))
    for one in anns:
        assert ask(shared, "/self_forcing/sessions/delete", bob, {"name": one})[0] == 404
        loading = Graph()
        load = loading("SFLoadSession", model=Tiny.of(loading).model, file=one, allow_other_model=False)
        info = loading("SFSessionInfo", session=load[0]).number
        assert ask(shared, "/prompt", bob, {"prompt": loading.prompt, "client_id": "of bob"})[0] == 400
        assert outputs(shared, queue(shared, loading, ann, "of ann"), info)
        address = anns[one]["picture"]
        assert ask(shared, address, None)[0] == 200  # a page asks for pictures without its user
        assert str(shared.base) not in address
        assert ann not in address
    assert ask(shared, "/self_forcing/sessions/picture/guessed", None)[0] == 404
    assert ask(shared, "/self_forcing/sessions/delete", ann, {"name": interrupted})[0] == 200
    assert set(listed(shared, ann)) == set(anns) - {interrupted}


def made_two(prompt: str) -> Callable[[Event], bool]:
    """Whether a message says that this prompt's run has made two chunks."""
    return lambda e: e.kind == "self_forcing.run" and e.data["prompt_id"] == prompt and e.data["chunk"] >= 2


def test_a_client_id_from_the_queue_takes_over_nothing(shared: Server) -> None:
    """And a node of the same id leaves the other user's frames where they are."""
    cat, dan = (ask(shared, "/users", None, {"username": name})[1] for name in ("cat", "dan"))
    graph = Graph()
    tiny = Tiny.of(graph)
    node = graph("SFStreamVideo", session=tiny.session(RED, seed=4), vae=tiny.vae, seconds=0.0, fps=16.0).number
    stop = {"node_id": node, "action": "stop"}
    attach = "/self_forcing/attach"
    with shared.events("of cat") as cats, shared.events("of dan") as dans:
        assert ask(shared, attach, cat, {"client_id": "of cat"})[0] == 200
        for user in (cat, None):  # a page of hers, and a program with her page's client id
            assert ask(shared, attach, dan, {"client_id": "of cat"})[0] == 409
            prompt = queue(shared, graph, user, "of cat")
            run = cats.wait_for(made_two(prompt)).data["run"]
            assert ask(shared, "/self_forcing/steer", dan, stop)[0] == 404
            assert ask(shared, "/self_forcing/steer", cat, stop)[0] == 200
            shared.wait(prompt)
        assert ask(shared, attach, dan, {"client_id": "of dan"})[0] == 200
        prompt = queue(shared, graph, dan, "of dan")
        dans.wait_for(lambda e: e.kind == "self_forcing.frames")
        assert ask(shared, "/self_forcing/steer", dan, stop)[0] == 200
        shared.wait(prompt)
        assert ask(shared, f"/self_forcing/frames/{run}/0", cat)[0] == 200
        assert ask(shared, f"/self_forcing/frames/{run}/0", dan)[0] == 404
    assert not [event for event in dans.all if event.kind.startswith("self_forcing.") and event.data["run"] == run]


def test_a_client_id_belongs_to_whoever_queues_with_it_first(shared: Server) -> None:
    """Before its page or program has asked for messages: from the queue, anybody may know it by then."""
    gil, hal = (ask(shared, "/users", None, {"username": name})[1] for name in ("gil", "hal"))
    graph = Graph()
    graph("PreviewImage", images=graph("EmptyImage", width=16, height=16, batch_size=1, color=0)[0])
    attach = "/self_forcing/attach"
    for user in (gil, None):  # None: a program that names no user
        client = f"of {user}, who has not attached"
        shared.wait(queue(shared, graph, user, client))
        assert ask(shared, attach, hal, {"client_id": client})[0] == 409
    assert ask(shared, attach, gil, {"client_id": f"of {gil}, who has not attached"})[0] == 200


def test_the_same_graph_saves_a_session_for_each_user(shared: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    graph("SFSaveSession", session=tiny.sampled(tiny.session(RED, seed=5), 1), filename_prefix="sessions/same")
    for name in ("eve", "fay"):
        user = ask(shared, "/users", None, {"username": name})[1]
        for _ in range(2):  # the second time, the user's own result is used
            shared.wait(queue(shared, graph, user, f"of {name}"))
            saved = [name for name, entry in listed(shared, user).items() if entry["kind"] == "saved"]
            assert saved == ["same_00001_.session"]
