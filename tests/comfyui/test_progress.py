"""Progress by chunk and step, a line of text, a picture a chunk, and previews at the end; and the right frames."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.comfyui.graphs import BLUE, SAVE, Graph, Tiny, forget_all, probe, temp_videos, tensor
from tools.comfyui.server import Server


def test_a_stream_says_how_far_it_is(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(BLUE, seed=3), vae=tiny.vae, seconds=5.8, fps=16.0)
    probe(graph, stream[1])
    with server.events("progress") as events:
        server.post("/self_forcing/attach", {"client_id": "progress"})
        outputs = server.run(graph.prompt, client_id="progress")
        events.wait_for_end()
    said = [event.data["text"] for event in events.of("text") if "fps" in event.data["text"]]
    assert len(said) == 8
    for chunk, text in enumerate(said, 1):
        assert re.fullmatch(rf"chunk {chunk}/8 · [\d.]+ fps · [\d.]+ (GiB|MiB|KiB|bytes) cache", text)
    bar = [e.data["value"] for e in events.of("progress") if e.data["node"] == stream.number]
    assert bar == sorted(bar)
    assert {e.data["max"] for e in events.of("progress") if e.data["node"] == stream.number} == {8 * 4}
    if server.checkout.version == "0.3.75":  # newer ones leave out what follows too soon
        assert set(range(8 * 4)) <= set(bar)  # every step of every chunk
    chunks = [event.data for event in events.of("self_forcing.frames")]
    assert [chunk["first"] for chunk in chunks] == [0, *range(9, 93, 12)]
    assert all(chunk["node_id"] == stream.number for chunk in chunks)
    assert [chunk["count"] for chunk in chunks] == [9] + [12] * 7
    assert all(set(chunk["numbers"]) <= set(range(chunk["first"], chunk["first"] + chunk["count"])) for chunk in chunks)
    for jpeg in (frame for chunk in chunks for frame in chunk["frames"]):
        assert Image.open(io.BytesIO(base64.b64decode(jpeg))).size == (64, 64)
    assert len(chunks[0]["frames"]) == 9  # the first chunk is shown whole, then no more than can be looked at
    assert all(len(chunk["frames"]) == len(chunk["numbers"]) <= 12 for chunk in chunks)
    states = [event.data for event in events.of("self_forcing.run")]
    # the second one says where the run's own frames begin; each chunk has one when its drift is known, and one when
    # it is decoded
    told = [s["chunk"] for s in states]
    assert told == sorted(told)
    assert set(told) == set(range(9))
    assert len(told) == 2 + 2 * 8 + 1
    assert [s["state"] for s in states] == ["running"] * 18 + ["ended"]
    assert states[-1]["frames"] == 93
    assert states[-1]["first_seconds"] > 0
    assert outputs[stream.number]["sf_video"][0]["type"] == "temp"


def test_chunks_of_an_earlier_run_are_said_to_be(server: Server) -> None:
    forget_all(server)
    for chunks in (2, 3):
        graph = Graph()
        tiny = Tiny.of(graph)
        probe(graph, tiny.sampled(tiny.session(BLUE, seed=5), chunks))
        with server.events("progress") as events:
            server.run(graph.prompt, client_id="progress")
            events.wait_for_end()
    said = [event.data["text"] for event in events.of("text") if event.data["text"].startswith("chunk ")]
    assert said[:2] == ["chunk 1/3 · kept from an earlier run", "chunk 2/3 · kept from an earlier run"]
    assert "fps" in said[-1]


def test_sampling_says_how_far_it_is(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    probe(graph, tiny.sampled(tiny.session(BLUE, seed=4), 3))
    with server.events("progress") as events:
        server.run(graph.prompt, client_id="progress")
        events.wait_for_end()
    said = [event.data["text"] for event in events.of("text") if "fps" in event.data["text"]]
    assert [text.split(" · ")[0] for text in said] == ["chunk 1/3", "chunk 2/3", "chunk 3/3"]


def test_a_bar_that_goes_on_for_long_moves_once_a_second_and_gets_to_its_end(server: Server) -> None:
    """Each move of it costs the editor some memory for good. An interrupt is heard all the same: see test_interrupt."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    chunks = 60  # of four steps each
    sampled = tiny.sampled(tiny.session(BLUE, seed=6), chunks)
    probe(graph, sampled)
    with server.events("progress") as events:
        server.run(graph.prompt, client_id="progress")
        events.wait_for_end()
    moves = [event for event in events.of("progress") if event.data["node"] == sampled.node]
    # of 240 steps; the first message may come late
    assert len(moves) <= 100 + 10 + moves[-1].time - moves[0].time < 4 * chunks
    values = [event.data["value"] for event in moves]
    assert values == sorted(values)
    assert values[-1] == 4 * chunks


@pytest.mark.parametrize("fps", [16.0, 24.0, 12.5])
def test_a_video_has_all_frames_at_its_rate(server: Server, fps: float) -> None:
    """As core's node saves it, with the workflow inside; decoding the session gives the same pictures."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(BLUE), vae=tiny.vae, seconds=1.0, fps=fps)
    saved = graph("SaveVideo", video=stream[0], filename_prefix="video/rate", **SAVE).number
    sampled = tiny.sampled(tiny.session(BLUE), 3)
    frames = graph("ProbeTensor", image=graph("SFDecodeChunks", session=sampled, vae=tiny.vae, fps=fps)[0]).number
    outputs = server.run(graph.prompt)
    (path,) = [file for file in server.files({saved: outputs[saved]}) if file.suffix == ".mp4"]
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate or 0) == fps
        assert "prompt" in container.metadata
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chunks = -(-(round(fps) + 3) // 12)  # the first has 3 frames less
    assert len(pictures) == 12 * chunks - 3
    shown = torch.from_numpy(np.stack(pictures)).float() / 255
    decoded = tensor(outputs, frames)
    count = min(len(shown), len(decoded))
    assert (shown[:count] - decoded[:count]).abs().mean() < 0.02


def test_sound_is_put_to_a_stream_by_core_nodes(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(BLUE), vae=tiny.vae, seconds=1.0, fps=16.0)
    parts = graph("GetVideoComponents", video=stream[0])
    sound = graph("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)[0]
    video = graph("CreateVideo", images=parts[0], fps=parts[2], audio=sound)[0]
    saved = graph("SaveVideo", video=video, filename_prefix="video/sound", **SAVE).number
    (path,) = server.files({saved: server.run(graph.prompt)[saved]})
    with av.open(str(path)) as container:
        assert container.streams.audio
        assert container.streams.video[0].frames == 21


def test_a_continued_stream_holds_only_what_is_new(server: Server) -> None:
    """Two streams in a row: their videos together are that of one go."""
    forget_all(server)

    def stream(graph: Graph, tiny: Tiny, session: Any, seconds: float) -> Any:
        return graph("SFStreamVideo", session=session, vae=tiny.vae, seconds=seconds, fps=16.0)

    graph = Graph()
    tiny = Tiny.of(graph)
    first = stream(graph, tiny, tiny.session(BLUE), 0.9)
    second = stream(graph, tiny, first[1], 0.9)
    whole = stream(graph, tiny, tiny.session(BLUE), 2.8)
    numbers: list[str] = []
    for node in (first, second, whole):
        images = graph("GetVideoComponents", video=node[0])[0]
        numbers.append(graph("ProbeTensor", image=images, name=f"video {len(numbers)}").number)
    outputs = server.run(graph.prompt)
    one, two, both = (tensor(outputs, number) for number in numbers)
    assert (len(one), len(two), len(both)) == (21, 24, 45)
    assert (torch.cat([one, two]) - both).abs().mean() < 0.02
    assert len(temp_videos(server)) >= 3
