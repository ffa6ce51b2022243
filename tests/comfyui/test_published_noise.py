"""Noise as published over the nodes: the library's latents, and every way that a session goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import sf_core
from sf_core import tiny
from tests.comfyui.graphs import RED, Graph, Out, Tiny, facts, forget_chunks, latents, probe
from tests.comfyui.wan_graphs import CUSTOM
from tools.comfyui.checkout import PRIMARY
from tools.comfyui.server import PromptFailed, Server

primary = pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)
PUBLISHED: dict[str, Any] = {"noise": "as published", "published_frames": 12}
ROLLING = {**CUSTOM, "window_frames": 21, "sink_frames": 3, "rules": "schedule=rolling"}


def by_library(seed: int, **settings: Any) -> torch.Tensor:
    """The four chunks that the library makes with the tiny model."""
    model, words = tiny.load_transformer(), tiny.load_text()
    config = sf_core.RolloutConfig(**settings) if settings else None
    session = sf_core.Session.start(model, words.encode(RED), config=config)
    session = session.with_noise(sf_core.PublishedNoise.of(session, seed, 12))
    for _ in range(4):
        session, _ = session.next_chunk()
    return session.latents


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4)


def test_a_published_seed_gives_the_librarys_latents(server: Server) -> None:
    """Sampled, streamed, kept from a run before, and of graphs that do not know the input: noise per chunk."""
    forget_chunks(server)
    graph = Graph()
    parts = Tiny.of(graph)
    begun = parts.session(seed=3, **PUBLISHED)
    sampled = probe(graph, parts.sampled(begun, 4), "sampled")
    stepwise = probe(graph, parts.sampled(parts.sampled(begun, 1), 3), "stepwise")
    stream = graph("SFStreamVideo", session=begun, vae=parts.vae, seconds=2.8, fps=16.0)
    streamed = probe(graph, stream[1], "streamed")
    plain = probe(graph, parts.sampled(parts.session(seed=3), 4), "plain")
    named = probe(graph, parts.sampled(parts.session(seed=3, noise="per chunk"), 4), "named")
    outputs = server.run(graph.prompt)
    ours = latents(outputs, sampled)
    assert close(ours, by_library(3))
    for number in (stepwise, streamed):
        assert torch.equal(latents(outputs, number), ours)
    assert torch.equal(latents(outputs, plain), latents(outputs, named))
    assert not close(latents(outputs, plain), ours)
    again = server.run({**graph.prompt, "99": {"class_type": "ProbeNothing", "inputs": {"number": 1}}})
    assert torch.equal(latents(again, sampled), ours)


@primary
def test_a_rolling_clip_ends_in_the_nodes_as_in_the_script(server: Server) -> None:
    graph = Graph()
    parts = Tiny.of(graph)
    settings = graph("SFRolloutSettings", **ROLLING)[0]
    sampled = probe(graph, parts.sampled(parts.session(seed=3, settings=settings, **PUBLISHED), 4))
    rolling = by_library(3, schedule="rolling", window_frames=21, sink_frames=3)
    assert close(latents(server.run(graph.prompt), sampled), rolling)


@primary
def test_a_session_with_published_noise_is_saved_loaded_rewound_and_rolled_again(server: Server) -> None:
    graph = Graph()
    parts = Tiny.of(graph)
    two = parts.sampled(parts.session(seed=4, **PUBLISHED), 2)
    saved = graph("SFSaveSession", session=two, filename_prefix="sessions/published")
    whole = probe(graph, parts.sampled(two, 2), "whole")
    again = probe(graph, parts.sampled(graph("SFRewind", session=two, chunks=1, new_seed=-1)[0], 3), "again")
    rolled = probe(graph, parts.sampled(graph("SFRewind", session=two, chunks=1, new_seed=8)[0], 5), "rolled")
    outputs = server.run(graph.prompt)
    expected = latents(outputs, whole)
    assert torch.equal(latents(outputs, again), expected)
    longer = latents(outputs, rolled)
    assert longer.shape[2] == 18
    assert torch.equal(longer[:, :, :3], expected[:, :, :3])
    assert not close(longer[:, :, 3:6], expected[:, :, 3:6])
    path = Path(outputs[saved.number]["text"][0].partition(":")[0])
    file = next((server.base / "output" / "sessions").glob(path.name))
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["sf.session"])["seeds"][0]["order"] == "self-forcing"
    forget_chunks(server)
    loading = Graph()
    parts = Tiny.of(loading)
    loaded = loading("SFLoadSession", model=parts.model, file=file.name, allow_other_model=False)[0]
    number = probe(loading, parts.sampled(loaded, 2), "loaded")
    info = loading("SFSessionInfo", session=loaded)
    outputs = server.run(loading.prompt)
    assert torch.equal(latents(outputs, number), expected)
    assert facts(outputs, number)["chunks"] == 4
    assert "seeds: 4 as published (12 latent frames, drawn by cpu)" in outputs[info.number]["text"][0]


@primary
def test_what_cannot_be_made_as_published_is_refused_before_the_work(server: Server) -> None:
    def refused(build: Any, words: str) -> None:
        graph = Graph()
        parts = Tiny.of(graph)
        build(graph, parts)
        with pytest.raises(PromptFailed, match=words):
            server.run(graph.prompt)

    def stream(graph: Graph, session: Out, vae: Out, seconds: float) -> None:
        graph("SFStreamVideo", session=session, vae=vae, seconds=seconds, fps=16.0)

    refused(
        lambda graph, parts: probe(graph, parts.sampled(parts.session(**PUBLISHED), 5)),
        "12 latent frames, which has 4 chunks to go, too few for the 5 that this run is to make",
    )
    refused(
        lambda graph, parts: stream(graph, parts.session(**PUBLISHED), parts.vae, 0.0),
        "which has 4 chunks to go, too few for a run without an end",
    )
    refused(
        lambda graph, parts: probe(graph, parts.session(noise="as published", published_frames=10)),
        "10 latent frames do not cut into a first block of 3",
    )
    demo = {**CUSTOM, "window_frames": 21, "sink_frames": 0, "shift": 8.0}
    refused(
        lambda graph, parts: probe(
            graph, parts.session(settings=graph("SFRolloutSettings", **demo)[0], noise="as published")
        ),
        "draws the noise of later steps without a seed",
    )


@primary
def test_a_session_says_its_clip_and_that_a_cpu_draws_other_noise(server: Server) -> None:
    graph = Graph()
    session = Tiny.of(graph).session(RED, **PUBLISHED)
    probe(graph, session)
    text = server.run(graph.prompt)[session.node]["sf_text"][0]
    assert "Noise as published, for a video of 45 frames" in text
    assert "another device draws other noise" in text
