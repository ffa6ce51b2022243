"""Interrupt stops at once; what was made is there: a session to go on with, a file that plays, a node that says so."""

from __future__ import annotations

import resource
import time
from typing import Any

import av
import pytest
import torch

from tests.comfyui.graphs import BLUE, Graph, Tiny, facts, forget_all, latents, probe, temp_videos
from tools.comfyui.server import PromptFailed, PromptInterrupted, Server

SECONDS = 6.0  # of the tiny model's: 9 chunks


def streaming(at: int, seconds: float = SECONDS, does: str = "interrupt") -> tuple[Graph, str, str]:
    """(a graph that interrupts itself at an attention, number of its stream, of the probe behind it)."""
    graph = Graph()
    tiny = Tiny.of(graph)
    model = graph("ProbeAttention", model=tiny.model, name="stop", at=at, does=does)[0]
    stream = graph("SFStreamVideo", session=tiny.session(BLUE, model=model), vae=tiny.vae, seconds=seconds, fps=16.0)
    graph(
        "SaveVideo",
        video=stream[0],
        filename_prefix="video/whole",
        format="auto",
        codec="auto",
        **{"format.codec": "auto"},
    )
    return graph, stream.number, probe(graph, stream[1])


def frames_of(latents: int) -> int:
    return max(0, 4 * latents - 3)


def played(path: Any) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("at", [50, 131, 200])
def test_what_was_made_before_an_interrupt_is_kept(server: Server, at: int) -> None:
    forget_all(server)
    graph, stream, number = streaming(at)
    with server.events("interrupt") as events:
        with pytest.raises(PromptInterrupted):
            server.run(graph.prompt, client_id="interrupt")
        events.wait_for_end()
        shown = [event.data for event in events.of("executed") if event.data["node"] == stream]
    sessions = server.get("/self_forcing/sessions")["sessions"]  # the newest first
    name = next(one["name"] for one in sessions if one["kind"] == "interrupted")
    chunks = int(name.split()[3])
    assert chunks >= 1
    frames = 0  # the only chunk may have been in the decoder
    if shown:
        video = temp_videos(server)[-1]
        assert shown[0]["output"]["sf_video"][0]["filename"] == video.name
        frames = played(video)
    assert frames_of(3 * (chunks - 1)) <= frames <= frames_of(3 * chunks)

    straight = streaming(0, does="nothing")
    whole = latents(server.run(straight[0].prompt), straight[2])
    graph = Graph()
    tiny = Tiny.of(graph)
    loaded = graph("SFLoadSession", model=tiny.model, file=name, allow_other_model=False)[0]
    number = probe(graph, tiny.sampled(loaded, 2))
    again = latents(server.run(graph.prompt), number)
    assert torch.equal(again, whole[:, :, : again.shape[2]])


def test_no_operation_follows_an_interrupt(server: Server) -> None:
    """The attention that the interrupt fell on is the last: none in the same forward comes after it."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    model = graph("ProbeAttention", model=tiny.model, name="last", at=75, does="interrupt")[0]
    probe(graph, tiny.sampled(tiny.session(BLUE, model=model), 9))
    with pytest.raises(PromptInterrupted):
        server.run(graph.prompt)
    graph = Graph()
    number = graph("ProbeCalls", name="last").number
    assert server.run(graph.prompt)[number]["calls"] == [75]


@pytest.mark.parametrize("kind", ["SFStreamVideo", "SFSampleChunks"])
def test_the_cancel_button_stops_an_endless_run(server: Server, kind: str) -> None:
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    session = tiny.session(BLUE, seed=int(time.time()))
    if kind == "SFStreamVideo":
        node = graph(kind, session=session, vae=tiny.vae, seconds=0.0, fps=16.0)
        probe(graph, node[1])
    else:
        node = graph(kind, session=session, chunks=100_000)
        probe(graph, node[0])
    with server.events("cancel") as events:
        prompt_id = server.submit(graph.prompt, client_id="cancel")
        events.wait_for(lambda event: event.kind == "text" and "chunk 3" in event.data["text"])
        server.interrupt()
        with pytest.raises(PromptInterrupted):
            server.wait(prompt_id)


def test_a_run_stops_after_the_chunk_at_work_and_ends_well(server: Server) -> None:
    """The route behind the node's button: the video is whole, what comes after the node runs."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    session = tiny.session(BLUE, seed=int(time.time()))
    stream = graph("SFStreamVideo", session=session, vae=tiny.vae, seconds=0.0, fps=16.0)
    number = probe(graph, stream[1])
    with server.events("stop") as events:
        prompt_id = server.submit(graph.prompt, client_id="stop")
        events.wait_for(lambda event: event.kind == "text" and "chunk 3" in event.data["text"])
        server.post("/self_forcing/steer", {"node_id": stream.number, "action": "stop"})
        outputs = server.wait(prompt_id)["outputs"]
    with pytest.raises(Exception, match="404"):  # it is over: there is nothing to stop any more
        server.post("/self_forcing/steer", {"node_id": stream.number, "action": "stop"})
    made = latents(outputs, number).shape[2]
    assert made >= 3 * 3
    assert played(temp_videos(server)[-1]) == frames_of(made)


def test_a_run_that_was_stopped_goes_on_when_queued_again(server: Server) -> None:
    """What was made is taken from the journal; the rest of what was asked for follows."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(BLUE, seed=4), vae=tiny.vae, seconds=20.0, fps=16.0)
    number = probe(graph, stream[1])
    with server.events("stop") as events:
        prompt_id = server.submit(graph.prompt, client_id="stop")
        events.wait_for(lambda event: event.kind == "text" and "chunk 3" in event.data["text"])
        server.post("/self_forcing/steer", {"node_id": stream.number, "action": "stop"})
        stopped = latents(server.wait(prompt_id)["outputs"], number)
    assert stopped.shape[2] < 81
    whole = latents(server.run(graph.prompt), number)
    assert whole.shape[2] == 81
    assert torch.equal(whole[:, :, : stopped.shape[2]], stopped)


def test_a_full_disk_ends_the_run_and_loses_nothing(server: Server) -> None:
    """A limit on the size of files stands for it: the video so far plays, and its chunks are found again."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(BLUE, seed=6), vae=tiny.vae, seconds=0.0, fps=16.0)
    number = probe(graph, stream[1])
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    size = max(400_000, server.log.stat().st_size + 200_000)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(PromptFailed, match=r"cannot (write|move older latents)"):
            server.run(graph.prompt)
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
    assert played(temp_videos(server)[-1]) > 100
    graph.prompt[stream.number]["inputs"]["seconds"] = 3.0
    assert facts(server.run(graph.prompt), number)["how"].startswith("kept")
