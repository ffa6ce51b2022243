"""Watching and steering a run over the server's routes: what docs/live.md says."""

from __future__ import annotations

import base64
import io
import itertools
import json
import random
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
import torch
from PIL import Image

from tests.comfyui.graphs import BLUE, RED, Graph, Tiny, forget_all, latents, probe
from tools.comfyui.events import Events
from tools.comfyui.server import Server

GREEN = "a green triangle moving down slowly on a gray background"
CHUNK = 12  # frames of a chunk, but 9 of the first
_seeds = itertools.count(int(time.time()))


class Live:
    """An endless Stream Video at work, and what was said of it."""

    def __init__(self, server: Server, events: Events, steerable: bool = True) -> None:
        self.server, self.events, self.graph = server, events, Graph()
        tiny = Tiny.of(self.graph)
        clip = {"clip": tiny.clip} if steerable else {}
        session = tiny.session(RED, seed=next(_seeds))
        stream = self.graph("SFStreamVideo", session=session, vae=tiny.vae, fps=16.0, seconds=0.0, **clip)
        self.node, self.probe = stream.number, probe(self.graph, stream[1])
        server.post("/self_forcing/attach", {"client_id": events.client_id, "own": True})
        self.prompt_id = server.submit(self.graph.prompt, client_id=events.client_id)

    def steer(self, action: str, **more: Any) -> None:
        self.server.post("/self_forcing/steer", {"node_id": self.node, "action": action, **more})

    def wait(self, when: Any) -> dict[str, Any]:
        """The first state of the run that is so."""
        event = self.events.wait_for(lambda e: e.kind == "self_forcing.run" and when(e.data))
        state: dict[str, Any] = event.data
        return state

    def chunks(self, count: int) -> dict[str, Any]:
        return self.wait(lambda state: state["chunk"] >= count)

    def settled(self) -> int:
        """The number of chunks once no more come; an endless run that is not paused makes one each 0.75 s."""
        for _ in range(20):
            count = len(self.events.of("self_forcing.frames"))
            time.sleep(1.5)
            if len(self.events.of("self_forcing.frames")) == count:
                return count
        raise AssertionError("chunks keep coming")

    def done(self, count: int) -> dict[str, Any]:
        """The first state with so many actions."""
        return self.wait(lambda state: len(state["actions"]) >= count)

    def end(self) -> tuple[torch.Tensor, dict[str, Any]]:
        """Stopped: the latents, and the last state."""
        self.steer("stop")
        outputs = self.server.wait(self.prompt_id)["outputs"]
        return latents(outputs, self.probe), outputs[self.node]["sf_run"][0]

    def replayed(self, state: dict[str, Any]) -> torch.Tensor:
        """The latents of the same graph with the run's rows in a Prompt Timeline, and no hand."""
        forget_all(self.server)
        self.graph.prompt["timeline"] = {
            "class_type": "SFPromptTimeline",
            "inputs": {"rows": state["rows"], "clip": self.graph.prompt[self.node]["inputs"]["clip"], "recache": False},
        }
        self.graph.prompt[self.node]["inputs"] |= {"timeline": ["timeline", 0], "seconds": state["seconds"]}
        return latents(self.server.run(self.graph.prompt), self.probe)


def test_what_was_typed_holds_from_the_chunk_that_is_recorded_and_can_be_made_again(server: Server) -> None:
    forget_all(server)
    with server.events("live") as events:
        live = Live(server, events)
        live.chunks(2)
        live.steer("prompt", prompt=BLUE)
        live.done(1)
        live.steer("cut")
        live.done(2)
        live.steer("prompt", prompt=GREEN, blend=3, recache=True)
        live.done(3)
        live.steer("reroll", seed="18446744073709551615")
        live.done(4)
        live.steer("reroll")
        state = live.done(5)
        live.chunks(state["chunk"] + 4)
        made, last = live.end()
    actions = last["actions"]
    assert [action["action"] for action in actions] == ["prompt", "cut", "prompt", "reroll", "reroll"]
    assert [action["chunk"] for action in actions[:3]] == sorted(action["chunk"] for action in actions[:3])
    assert actions[0]["prompt"] == BLUE
    assert last["prompt"] == GREEN
    assert last["state"] == "ended"
    assert made.shape[2] == 3 * last["chunk"]
    assert torch.equal(live.replayed(last), made)


def test_a_re_rolled_chunk_is_withdrawn_by_name_and_comes_again(server: Server) -> None:
    forget_all(server)
    with server.events("live") as events:
        live = Live(server, events)
        live.chunks(3)
        live.steer("reroll", seed=5)
        state = live.done(1)
        live.chunks(state["chunk"] + 2)
        _, last = live.end()
        events.wait_for_end()
    withdrawn = events.wait_for(lambda e: e.kind == "self_forcing.withdrawn").data
    assert withdrawn["chunk"] == last["actions"][0]["chunk"]
    assert withdrawn["first"] == CHUNK * withdrawn["chunk"] - 3
    order = [(e.kind.split(".")[1], e.data["chunk"]) for e in events.all if e.kind in FRAMES]
    at = order.index(("withdrawn", withdrawn["chunk"]))
    assert ("frames", withdrawn["chunk"]) in order[:at]
    assert order[at + 1] == ("frames", withdrawn["chunk"])
    assert all(e.data["run"] == last["run"] for e in events.all if e.kind in FRAMES)


FRAMES = ("self_forcing.frames", "self_forcing.withdrawn")


def test_a_watched_endless_run_makes_no_more_than_plays_and_pauses(server: Server) -> None:
    forget_all(server)
    with server.events("live") as events:
        live = Live(server, events)
        live.chunks(1)
        begun = time.monotonic()
        state = live.chunks(13)
        # a second ahead and the chunks at work, and a first message that came late; unbounded, it takes a second or two
        assert state["frames"] / 16 <= time.monotonic() - begun + 1.0 + 3 * CHUNK / 16 + 3.0
        live.steer("pause")
        live.wait(lambda state: state["state"] == "paused")
        paused = live.settled()
        live.steer("resume")
        live.wait(lambda state: state["state"] == "running" and state["chunk"] > paused)
        live.steer("pause")
        _, last = live.end()  # a run that is paused can be stopped
    assert last["state"] == "ended"
    assert last["actions"] == []


def test_a_paused_run_is_interrupted_and_keeps_its_video(server: Server) -> None:
    forget_all(server)
    with server.events("live") as events:
        live = Live(server, events)
        live.chunks(2)
        live.steer("pause")
        live.wait(lambda state: state["state"] == "paused")
        server.interrupt()
        last = live.wait(lambda state: state["state"] == "interrupted")
    assert last["video"]["filename"].endswith(".mp4")
    assert (server.base / "temp" / last["video"]["subfolder"] / last["video"]["filename"]).exists()


def test_every_frame_that_was_sent_can_be_asked_for_while_the_run_goes_on(server: Server) -> None:
    forget_all(server)
    with server.events("live") as events:
        live = Live(server, events)
        state = live.chunks(3)
        sent = events.wait_for(lambda e: e.kind == "self_forcing.frames" and e.data["chunk"] == 1).data
        url = f"{server.url}/self_forcing/frames/{state['run']}"
        for number, picture in zip(sent["numbers"], sent["frames"], strict=True):
            with urllib.request.urlopen(f"{url}/{number}") as answer:
                assert answer.headers["X-Frame"] == str(number)
                assert answer.read() == base64.b64decode(picture)
        with urllib.request.urlopen(f"{url}/999999999") as answer:
            assert Image.open(io.BytesIO(answer.read())).size == (64, 64)
        for wrong in ("-1", "x", "1" * 50, "%2e%2e"):
            with pytest.raises(urllib.error.HTTPError, match=r"40[04]"):
                urllib.request.urlopen(f"{url}/{wrong}")
        live.end()


def test_who_attaches_gets_the_state_and_what_comes(server: Server) -> None:
    forget_all(server)
    with server.events("live") as events, server.events("other") as other:
        live = Live(server, events)
        live.chunks(2)
        answer = server.post("/self_forcing/attach", {"client_id": other.client_id})
        (state,) = [run for run in answer["runs"] if run["node_id"] == live.node and run["state"] == "running"]
        assert state["chunk"] >= 2
        frames = other.wait_for(lambda e: e.kind == "self_forcing.frames").data
        assert frames["run"] == state["run"]
        live.end()


def test_a_prompt_that_the_encoder_does_not_know_is_said_and_changes_nothing(server: Server) -> None:
    forget_all(server)
    with server.events("live") as events:
        live = Live(server, events)
        live.chunks(1)
        live.steer("prompt", prompt="an elephant")
        note = live.wait(lambda state: state["note"])["note"]
        assert "elephant" in note
        _, last = live.end()
    assert last["actions"] == []


def test_a_run_without_a_clip_says_how_to_steer_it(server: Server) -> None:
    forget_all(server)
    with server.events("live") as events:
        live = Live(server, events, steerable=False)
        live.wait(lambda state: not state["steerable"] and state["chunk"])
        with pytest.raises(urllib.error.HTTPError, match="409") as refused:
            live.steer("prompt", prompt=BLUE)
        assert "clip" in refused.value.read().decode()
        live.end()


@pytest.mark.parametrize(
    "body",
    [
        *(None, [], {}, {"node_id": None}, {"node_id": "7"}, {"node_id": {"a": 1}, "action": "stop"}),
        *({"node_id": "7", "action": "stop"}, {"node_id": "7", "action": None}, {"node_id": True, "action": "stop"}),
    ],
)
def test_steering_refuses_what_makes_no_sense(server: Server, body: Any) -> None:
    with pytest.raises(urllib.error.HTTPError, match=r"40[04]"):
        server.post("/self_forcing/steer", body)


def refused(server: Server, body: Any) -> tuple[int, str] | None:
    """Status and reason; None if it was accepted."""
    try:
        server.post("/self_forcing/steer", body)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]
    return None


def test_a_live_run_survives_garbage(server: Server) -> None:
    """Every refusal is a sentence, and the run goes on."""
    random.seed(1)
    values: list[Any] = [None, True, -1, 0, 3, 1.5, "", "x" * 3000, "\ud800", "cut\0", [], {}, "9" * 30, 2**70, RED]
    with server.events("live") as events:
        live = Live(server, events)
        live.chunks(1)
        for _ in range(300):
            body = {
                "node_id": live.node,
                "action": random.choice(["prompt", "reroll", "pause", "resume", "?", *values]),
            }
            body |= {
                name: random.choice(values) for name in ("prompt", "blend", "recache", "seed") if random.random() > 0.5
            }
            refusal = refused(server, body)
            assert refusal is None or (refusal[0] in (400, 404, 409, 413) and refusal[1]), body
        live.steer("resume")
        live.chunks(3)
        made, last = live.end()
    assert torch.isfinite(made).all()
    assert last["state"] == "ended"


def test_a_client_without_a_player_gets_small_previews_now_and_then(server: Server) -> None:
    """ComfyUI's own; none of a run whose frames it shows."""
    graph = Graph()
    tiny = Tiny.of(graph)
    node = graph("SFStreamVideo", session=tiny.session(RED, seed=77), vae=tiny.vae, seconds=0.0, fps=16.0).number
    with server.events("previews") as events:
        begun = time.monotonic()
        server.submit(graph.prompt, client_id=events.client_id)
        events.wait_until(lambda seen: len([e for e in seen if e.kind == "preview"]) >= 3)
        previews = events.of("preview")
        assert len(previews) <= 1 + 2 * (time.monotonic() - begun)
        assert all(len(one.image) < 50_000 for one in previews)
        server.post("/self_forcing/attach", {"client_id": events.client_id})
        shown = events.wait_for(lambda e: e.kind == "self_forcing.frames").data["chunk"]
        before = len(events.of("preview"))
        events.wait_for(lambda e: e.kind == "self_forcing.frames" and e.data["chunk"] > shown + 2)
        assert len(events.of("preview")) == before
        server.post("/self_forcing/steer", {"node_id": node, "action": "stop"})
        events.wait_for_end()
