"""A run is one client's: who sees it, who steers it, who pays for a client that does not read, and what runs again."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import socket
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.comfyui.graphs import BLUE, RED, Graph, Out, Tiny, forget_all
from tests.comfyui.sessions_api import post
from tools.comfyui.events import Event, Events
from tools.comfyui.server import PromptFailed, Server

ATTACH, STEER = "/self_forcing/attach", "/self_forcing/steer"
MESSAGE_BYTES = 256_000
LARGE_SEED = 2**63 + 1  # JavaScript has no such number
_seeds = itertools.count(LARGE_SEED + int(time.time()))


class Endless:
    """A graph whose Stream Video goes on until it is stopped."""

    def __init__(self, server: Server, fps: float = 16.0, edge: int = 0) -> None:
        self.server, self.graph = server, Graph()
        tiny = Tiny.of(self.graph)
        self.seed = next(_seeds)
        vae = self.graph("ProbeNumbered", vae=tiny.vae, edge=edge)[0]
        session = tiny.session(RED, seed=self.seed)
        self.session = session.node
        stream = self.graph("SFStreamVideo", session=session, vae=vae, seconds=0.0, fps=fps, clip=tiny.clip)
        self.node = stream.number

    def queue(self, client: Events, **more: Any) -> str:
        return self.server.submit(self.graph.prompt, client_id=client.client_id, **more)

    def steer(self, action: str, **more: Any) -> tuple[int, dict[str, Any]]:
        return post(self.server, STEER, node_id=self.node, action=action, **more)

    def stop(self, prompt: str) -> dict[str, Any]:
        """Stop the run; the last state of it."""
        assert self.steer("stop")[0] == 200
        state: dict[str, Any] = self.server.wait(prompt)["outputs"][self.node]["sf_run"][0]
        return state


def attach(server: Server, client: Events, **wish: Any) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = server.post(ATTACH, {"client_id": client.client_id, **wish})["runs"]
    return runs


def frames_of(event: Event) -> list[Any]:
    shown: list[Any] = event.data["frames"] if event.kind == "self_forcing.frames" else []
    return shown


def has_frames(event: Event) -> bool:
    return bool(frames_of(event))


def ours(events: Events) -> list[Event]:
    return [event for event in events.all if event.kind.startswith("self_forcing.")]


def chunk(number: int) -> Any:
    return lambda event: event.kind == "self_forcing.run" and event.data["chunk"] >= number


@pytest.fixture(autouse=True)
def settled(server: Server) -> Iterator[None]:
    yield
    server.settle()


def test_two_tabs_with_one_graph_each_see_and_steer_their_own_run(server: Server) -> None:
    with server.events("tab one") as one, server.events("tab two") as two:
        graph = Endless(server)
        for tab in (one, two):
            attach(server, tab, own=True)
        prompt = graph.queue(one)
        state = one.wait_for(chunk(1)).data
        waits = graph.queue(two)
        assert one.wait_for(has_frames)
        assert state["prompt_id"] == prompt
        assert graph.steer("stop", client_id="tab two")[0] == 404
        assert graph.steer("stop", run="of tab two")[0] == 404
        assert graph.steer("cut", run=state["run"], client_id="tab one")[0] == 200
        assert [run["run"] for run in attach(server, one, own=True)] == [state["run"]]  # as a page that is loaded again
        assert attach(server, two, own=True) == []
        assert ours(two) == []
        graph.stop(prompt)
        other = two.wait_for(chunk(1)).data
        assert other["run"] != state["run"]
        assert graph.steer("stop", run=state["run"])[0] == 404
        graph.stop(waits)
        assert {event.data["run"] for event in ours(one)} == {state["run"]}
        with urllib.request.urlopen(f"{server.url}/self_forcing/frames/{state['run']}/0") as answer:
            assert answer.headers["X-Frame"] == "0"  # the second run took nothing from the first


def test_frames_are_sent_to_those_that_asked_for_them_and_show_them(server: Server) -> None:
    """And the seeds of a run keep their digits; and a thousand strangers throw out nobody."""
    with server.events("a program") as program, server.events("a page") as page:
        attach(server, page)
        strangers = http.client.HTTPConnection("127.0.0.1", server.port)
        for number in range(1100):
            strangers.request("POST", ATTACH, json.dumps({"client_id": f"stranger {number}"}))
            assert strangers.getresponse().read()
        graph = Endless(server)
        prompt = graph.queue(program)
        state = page.wait_for(chunk(2)).data
        assert state["seeds"] == {graph.session: {"seed": str(graph.seed)}}
        assert page.wait_for(has_frames)
        assert program.wait_for(chunk(2))
        assert not any(map(frames_of, program.all))
        attach(server, program)
        assert program.wait_for(has_frames)
        assert frames_after(server, page, visible=False) == set()
        assert frames_after(server, page, runs=[]) == set()
        attach(server, page, runs=[state["run"]])
        at = len(page.all)
        assert page.wait_until(lambda events: any(map(frames_of, events[at:])))
        graph.stop(prompt)


def frames_after(server: Server, page: Events, **wish: Any) -> set[int]:
    """The chunks whose frames come after the page has asked for that, but for what was on its way."""
    attach(server, page, **wish)
    at = len(page.all)
    states = page.wait_until(lambda events: [e for e in events[at:] if e.kind == "self_forcing.run"])
    now: int = states[0].data["chunk"]
    page.wait_for(chunk(now + 3))
    return {event.data["chunk"] for event in page.all[at:] if has_frames(event)} - {now - 1, now}


@contextlib.contextmanager
def deaf(server: Server, client_id: str) -> Iterator[None]:
    """A websocket that is never read, as of a laptop that sleeps."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET /ws?clientId={client_id} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Upgrade: websocket"]
        lines += ["Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        assert connection.recv(12) == b"HTTP/1.1 101"
        yield


def test_a_client_that_does_not_read_holds_up_nobody_and_no_message_is_long(server: Server) -> None:
    forget_all(server)
    with server.events("reads") as reads, deaf(server, "deaf"):
        for client in ("deaf", "reads"):
            server.post(ATTACH, {"client_id": client})
        graph = Endless(server, edge=256)
        prompt = server.submit(graph.graph.prompt, client_id="deaf")  # ComfyUI's own messages go to it as well
        reads.wait_until(lambda events: sum(len(one) for event in events for one in frames_of(event)) > 3_000_000)
        begun = time.monotonic()
        graph.stop(prompt)
        reads.wait_for(lambda event: event.kind == "self_forcing.run" and event.data["state"] == "ended")
        reads.wait_until(lambda events: [e for e in events if e.kind == "status" and e.time > begun])
        assert max(len(json.dumps(event.data)) for event in ours(reads)) <= MESSAGE_BYTES


def test_a_run_whose_timeline_no_message_holds_is_shown_without_it(server: Server) -> None:
    """Its answer to a page that attaches, which is no message, has all of it."""
    rows = "\n".join(f"{number}: {BLUE if number % 2 else RED}" for number in range(6000))
    graph = Graph()
    tiny = Tiny.of(graph)
    timeline = graph("SFPromptTimeline", rows=rows, clip=tiny.clip, recache=False)[0]
    inputs = {"session": tiny.session(RED, seed=next(_seeds)), "vae": tiny.vae, "seconds": 1.0, "fps": 16.0}
    graph("SFStreamVideo", **inputs, timeline=timeline)
    with server.events("long") as events:
        attach(server, events)
        server.run(graph.prompt, client_id="long")
        state = events.wait_for(lambda event: event.kind == "self_forcing.run" and event.data["state"] == "ended").data
        assert (state["rows"], state["chunk"]) == ("", 2)
        assert max(len(json.dumps(event.data)) for event in ours(events)) <= MESSAGE_BYTES
        assert any(run["run"] == state["run"] and len(run["rows"]) > MESSAGE_BYTES for run in attach(server, events))


def executed(events: Events, prompt: str) -> set[str]:
    """The nodes that a prompt did not find in ComfyUI's cache."""
    mine = [event for event in events.of("executing", "execution_cached") if event.data.get("prompt_id") == prompt]
    return {event.data["node"] for event in mine if event.kind == "executing"} - {None}


def test_only_a_node_that_was_steered_runs_again_and_its_rate_is_of_its_work(server: Server) -> None:
    """A pause, a cut that was not made and a prompt that was not understood steer nothing."""
    forget_all(server)
    with server.events("steers") as events:
        graph = Endless(server, fps=4.0)
        tiny = Tiny(graph.graph, *(Out("1", slot) for slot in range(3)))
        other = graph.graph("SFStreamVideo", session=tiny.session(BLUE), vae=tiny.vae, seconds=0.5, fps=16.0).number

        first = graph.queue(events)
        state = events.wait_for(chunk(5)).data
        assert state["made_fps"] > 6  # while no more than 4 a second are let through
        graph.stop(first)
        assert {graph.node, other} <= executed(events, first)
        second = graph.queue(events)
        events.wait_for(lambda event: chunk(1)(event) and event.data["prompt_id"] == second)
        graph.stop(second)
        assert executed(events, second) & {graph.node, other} == {graph.node}

        graph.graph.prompt[graph.node]["inputs"]["seconds"] = 20.0
        third = graph.queue(events)
        events.wait_for(lambda event: chunk(1)(event) and event.data["prompt_id"] == third)
        assert graph.steer("pause")[0] == 200
        assert graph.steer("prompt", prompt="an elephant")[0] == 200
        events.wait_for(lambda event: event.kind == "self_forcing.run" and event.data["refused"]["count"] == 1)
        assert graph.steer("nonsense")[0] == 400
        assert graph.steer("resume")[0] == 200
        assert events.wait_for(lambda event: event.kind == "self_forcing.run" and not event.data["note"])
        server.wait(third)
        fourth = graph.queue(events)
        server.wait(fourth)
        assert executed(events, fourth) & {graph.node, other} == set()


def test_a_refusal_stays_however_soon_it_comes(server: Server) -> None:
    """The encoder's thread may be faster than the answer to the request, which takes back older refusals."""
    with server.events("refused") as events:
        graph = Endless(server)
        prompt = graph.queue(events)
        events.wait_for(chunk(1))
        for count in range(1, 9):
            assert graph.steer("prompt", prompt="an elephant")[0] == 200
            events.wait_for(lambda event, count=count: event.data.get("refused", {}).get("count") == count)  # type: ignore[misc]
            assert "elephant" in attach(server, events, own=True)[0]["note"]
        graph.stop(prompt)


def test_actions_that_wait_for_a_paused_run_are_limited_too(server: Server) -> None:
    """And a refusal is gone from the node once another action is accepted."""
    with server.events("floods") as events:
        graph = Endless(server)
        prompt = graph.queue(events)
        events.wait_for(chunk(2))
        graph.steer("prompt", prompt="an elephant")
        said = events.wait_for(lambda event: event.kind == "self_forcing.run" and "elephant" in event.data["note"]).data
        assert said["refused"] == {"count": 1, "prompt": "an elephant"}
        graph.steer("pause")
        events.wait_for(lambda event: event.kind == "self_forcing.run" and event.data["state"] == "paused")
        events.wait_until(lambda all_: [e for e in all_ if e.kind == "self_forcing.run"][-1].data["note"] == "")
        assert {graph.steer("cut")[0] for _ in range(100)} == {200}
        answers = [graph.steer("prompt", prompt=BLUE) for _ in range(100)]
        assert sorted({status for status, _ in answers}) == [200, 409]
        assert "wait" in next(answer["error"] for status, answer in answers if status == 409)
        graph.steer("resume")
        state = graph.stop(prompt)
        assert len(state["actions"]) <= 70
        assert graph.steer("prompt", prompt=BLUE)[0] == 404


@pytest.mark.parametrize("extra", [{"extra": None}, {"extra": {"self_forcing": []}}], ids=["null", "list"])
def test_a_steered_run_is_recorded_whatever_a_program_sent_as_workflow(server: Server, extra: Any) -> None:
    with server.events("odd") as events:
        graph = Endless(server)
        info = {"workflow": {"nodes": [], **extra}, "half": "\ud800", "half \udc00 a key": 1}
        prompt = graph.queue(events, extra_data={"extra_pnginfo": info})
        events.wait_for(chunk(1))
        graph.steer("cut")
        events.wait_for(lambda event: event.kind == "self_forcing.run" and len(event.data["actions"]) == 1)
        assert graph.stop(prompt)["state"] == "ended"


def test_a_node_that_fails_before_it_streams_leaves_no_run_behind(server: Server) -> None:
    folder = server.base / "temp" / "self_forcing"
    forget_all(server)
    with server.events("fails") as events:
        attach(server, events)
        graph = Endless(server)
        aside = folder.rename(folder.with_name("aside"))
        try:
            folder.write_text("in the way")
            with pytest.raises(PromptFailed):
                server.wait(graph.queue(events))
        finally:
            folder.unlink()
            aside.rename(folder)
        assert not [run for run in attach(server, events) if run["state"] == "running"]
