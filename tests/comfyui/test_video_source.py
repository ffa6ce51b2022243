"""Video to video in graphs: clips as files and as batches, what follows their end, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_world.observe import observe
from benchmarks.tiny_world.scorer import judge
from sf_core.tiny import load_vae
from sf_core.tiny.world import Scene, wrapped
from tests.comfyui.graphs import Graph, Out, Tiny, facts, forget_all, latents, probe, tensor
from tests.comfyui.test_bad_input import says
from tests.comfyui.wan_graphs import CUSTOM
from tools.comfyui.server import Server

CLIP = "red_circle.mp4"  # of workflows/input, which the pack offers
SCENE = Scene("red", "circle", "right", "slowly", "white", (20.0, 32.0), 12.5)  # what it shows
FRAMES = 33


def source(graph: Graph, tiny: Tiny, **changes: Any) -> Out:
    inputs = {"vae": tiny.vae, "strength": 0.8, "at_end": "stop", "fit": "crop", "schedule": "repeated", **changes}
    if not {"video", "image"} & changes.keys():
        inputs["video"] = graph("LoadVideo", file=CLIP)[0]
    return graph("SFVideoSource", **inputs)[0]


def streamed(graph: Graph, tiny: Tiny, given: Out, seconds: float = 10.0, words: str = "a blue square") -> Any:
    return graph("SFStreamVideo", session=tiny.session(words), vae=tiny.vae, seconds=seconds, fps=16.0, source=given)


def encoded(graph: Graph, tiny: Tiny, image: Out) -> str:
    return graph("ProbeTensor", latent=graph("VAEEncode", pixels=image, vae=tiny.vae)[0]).number


def normal(latents: Tensor) -> Tensor:
    vae = load_vae()
    return (latents - vae.mean.view(-1, 1, 1, 1)) / vae.std.view(-1, 1, 1, 1)


def test_a_red_circle_comes_out_as_a_blue_square_on_its_path(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    made = streamed(graph, tiny, source(graph, tiny))
    number = graph("ProbeTensor", image=graph("GetVideoComponents", video=made[0])[0]).number
    session = probe(graph, made[1])
    outputs = server.run(graph.prompt)
    frames = tensor(outputs, number)
    assert len(frames) == FRAMES, "the video ends with its source"
    assert facts(outputs, session)["chunks"] == 3
    seen = observe(frames)
    assert judge(seen, "a blue square").frames_correct >= 0.9
    distance = wrapped(seen.centre - SCENE.centres(FRAMES), 64).norm(dim=1)
    assert float((distance <= 3).float().mean()) >= 0.9


def test_strength_0_gives_the_clip_and_1_what_there_is_without_it(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    clip = graph("ProbeFrames", frames=21, width=64, height=64)[0]
    kept = streamed(graph, tiny, source(graph, tiny, image=clip, strength=0.0), 21 / 16)[1]
    anew = streamed(graph, tiny, source(graph, tiny, image=clip, strength=1.0, schedule="rescaled"), 21 / 16)[1]
    alone = tiny.sampled(tiny.session("a blue square"), 2)
    numbers = [probe(graph, session, f"{index}") for index, session in enumerate((kept, anew, alone))]
    given = encoded(graph, tiny, clip)
    outputs = server.run(graph.prompt)
    first, second, third = (latents(outputs, number) for number in numbers)
    want = normal(tensor(outputs, given))
    assert (first - want).abs().max() <= 1e-4 * want.abs().max()
    assert torch.equal(second, third)


def test_sample_chunks_takes_the_same_source_as_stream_video(server: Server) -> None:
    """And a run of it goes on in the clip where the session is."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    given = source(graph, tiny, at_end="loop")
    session = tiny.session("a blue square")
    begun = graph("SFSampleChunks", session=session, chunks=2, source=given)[0]
    sampled = graph("SFSampleChunks", session=begun, chunks=3, source=given)[0]
    numbers = probe(graph, sampled, "sampled"), probe(graph, streamed(graph, tiny, given, 57 / 16)[1], "streamed")
    outputs = server.run(graph.prompt)
    forget_all(server)
    assert torch.equal(*(latents(outputs, number) for number in numbers))


@pytest.mark.parametrize(("fit", "edge"), [("crop", False), ("pad", True)])
def test_a_wide_clip_is_cropped_or_padded(server: Server, fit: str, edge: bool) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    clip = graph("ProbeFrames", frames=9, width=160, height=64)[0]
    made = streamed(graph, tiny, source(graph, tiny, image=clip, strength=0.0, fit=fit), 0.5)
    number = graph("ProbeTensor", image=graph("GetVideoComponents", video=made[0])[0]).number
    frames = tensor(server.run(graph.prompt), number)
    assert (float(frames[:, :10].mean()) < 0.15) == edge


def test_what_cannot_be_a_source_is_said_in_words(server: Server) -> None:
    def both(graph: Graph, tiny: Tiny) -> Out:
        clip = graph("ProbeFrames", frames=9, width=64, height=64)[0]
        given = source(graph, tiny, image=clip, video=graph("LoadVideo", file=CLIP)[0])
        return streamed(graph, tiny, given)[1]

    def neither(graph: Graph, tiny: Tiny) -> Out:
        given = graph("SFVideoSource", vae=tiny.vae, strength=0.5, at_end="hold", fit="crop")[0]
        return streamed(graph, tiny, given)[1]

    def too_short(graph: Graph, tiny: Tiny) -> Out:
        given = source(graph, tiny, image=graph("ProbeFrames", frames=9, width=64, height=64)[0])
        begun = tiny.sampled(tiny.session(), 1)
        return graph("SFSampleChunks", session=begun, chunks=1, source=given)[0]

    def rolling(graph: Graph, tiny: Tiny) -> Out:
        settings = graph("SFRolloutSettings", **{**CUSTOM, "window_frames": 21, "rules": "schedule=rolling"})[0]
        session = tiny.session(settings=settings)
        return graph("SFSampleChunks", session=session, chunks=1, source=source(graph, tiny))[0]

    says(server, both, "both a video and images", "connect one of 'video' and 'image'")
    says(server, neither, "neither a video nor images")
    says(server, too_short, "the source is too short", "9 already", "hold or loop")
    says(server, rolling, "schedule='rolling'", "take settings with schedule='chunk'")
