"""Drift in ComfyUI: it is measured and told, and what is done about it is in the session and made again."""

from __future__ import annotations

import json
from typing import Any

import av
import pytest
import torch

from tests.comfyui.graphs import RED, Graph, Tiny, facts, forget_all, latents, probe, temp_videos
from tests.comfyui.test_published_noise import ROLLING
from tools.comfyui.server import PromptFailed, Server

CHUNKS = 6


def made(server: Server, node: str = "SFStreamVideo", **inputs: Any) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Outputs, the number of the probe, and the last state of a run of `CHUNKS` chunks."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    if node == "SFStreamVideo":
        session = graph(node, session=tiny.session(seed=3), vae=tiny.vae, seconds=4.0, fps=16.0, **inputs)[1]
    else:
        session = graph(node, session=tiny.session(seed=3), chunks=CHUNKS, **inputs)[0]
    number = probe(graph, session)
    info = graph("SFSessionInfo", session=session).number
    with server.events("drift") as events:
        outputs = server.run(graph.prompt, client_id="drift")
        state = events.wait_for(lambda event: event.kind == "self_forcing.run" and event.data["state"] == "ended").data
    assert f"largest {max(drift for _, drift in state['drift']['points']):.2f} in chunk" in outputs[info]["text"][0]
    return outputs, number, state


def test_each_run_tells_its_drift_and_writes_it_into_the_video(server: Server) -> None:
    _, _, state = made(server)
    drift = state["drift"]
    assert [chunk for chunk, _ in drift["points"]] == list(range(CHUNKS))
    assert drift["threshold"] == 0.5
    assert drift["points"][0][1] == 0 < drift["points"][-1][1] < 0.5
    assert drift["now"]["drift"] == pytest.approx(drift["points"][-1][1], abs=1e-3)
    assert 0 < drift["now"]["saturation"] < 1
    with av.open(str(temp_videos(server)[-1])) as container:
        assert json.loads(container.metadata["self_forcing"])["drift"] == drift["points"]


def test_a_video_that_is_matched_is_made_again_to_the_bit_by_both_nodes(server: Server) -> None:
    inputs: dict[str, Any] = {"on_drift": "match", "drift_threshold": 0.0}
    outputs, number, state = made(server, **inputs)
    first = latents(outputs, number)
    with av.open(str(temp_videos(server)[-1])) as container:
        assert "colours matched at chunk 3" in json.loads(container.metadata["self_forcing"])["timeline"]
    assert max(drift for _, drift in state["drift"]["points"][3:]) < 1e-3
    for node in ("SFStreamVideo", "SFSampleChunks"):
        outputs, number, _ = made(server, node, **inputs)
        assert torch.equal(latents(outputs, number), first)
    outputs, number, _ = made(server)
    assert not torch.equal(latents(outputs, number), first)


def test_what_is_done_is_said_and_what_cannot_be_done_is_refused_before_the_work(server: Server) -> None:
    _, _, state = made(server, on_drift="warn", drift_threshold=0.05)
    assert state["note"].startswith("Drift: chunk")
    graph = Graph()
    tiny = Tiny.of(graph)
    settings = graph("SFRolloutSettings", **ROLLING)[0]
    session = tiny.session(RED, settings=settings)
    graph("SFStreamVideo", session=session, vae=tiny.vae, seconds=1.0, fps=16.0, on_drift="match")
    with pytest.raises(PromptFailed, match="schedule='rolling' has several chunks in flight"):
        server.run(graph.prompt)


def test_a_run_says_that_it_acts_only_where_it_does(server: Server) -> None:
    """The first three chunks are what others are compared with: they may differ, and nothing is done about it."""
    for action, said in (("match", "the next gets the colours"), ("recache", "the window is passed again")):
        notes = list[tuple[int, str]]()
        with server.events("acting") as events:
            graph = Graph()
            tiny = Tiny.of(graph)
            inputs: dict[str, Any] = {"chunks": CHUNKS, "on_drift": action, "drift_threshold": 0.005}
            session = graph("SFSampleChunks", session=tiny.session(seed=3), **inputs)[0]
            number = probe(graph, session)
            outputs = server.run(graph.prompt, client_id="acting")
            events.wait_for(lambda event: event.kind == "self_forcing.run" and event.data["state"] == "ended")
            states = [event.data for event in events.of("self_forcing.run")]
        assert states[-1]["drift"]["points"][1][1] > 0.005
        for note in dict.fromkeys(state["note"] for state in states if said in state["note"]):
            notes.append((int(note.split("at chunk ")[1].split(":")[0]), note))
        assert [chunk for chunk, _ in notes] == [n for n, code in enumerate(facts(outputs, number)["events"]) if code]
