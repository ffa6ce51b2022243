"""Rules of other published models over the nodes: what they need beside a MODEL, and what the nodes say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.comfyui import models
from tests.comfyui.graphs import Graph, Out, Tiny, latents, probe
from tests.comfyui.wan_graphs import CUSTOM
from tools.comfyui.checkout import PRIMARY
from tools.comfyui.server import PromptFailed, Server

primary = pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)
KREA = {**CUSTOM, "window_frames": 6, "sink_frames": 0, "rules": "context=recompute"}


def session(graph: Graph, tiny: Tiny, settings: dict[str, object]) -> Out:
    text = graph("CLIPTextEncode", text="a red circle moving left on a black background", clip=tiny.clip)[0]
    config = graph("SFRolloutSettings", **settings)[0]
    size = {"width": 64, "height": 64, "seed": 3}
    return graph("SFSession", model=tiny.model, positive=text, settings=config, **size)[0]


@primary
def test_sample_chunks_makes_krea_with_a_vae_as_stream_video_does(server: Server) -> None:
    """From the third chunk on, the context begins with a picture that is encoded anew."""
    graph = Graph()
    tiny = Tiny.of(graph)
    begun = session(graph, tiny, KREA)
    sampled = probe(graph, graph("SFSampleChunks", session=begun, chunks=4, vae=tiny.vae)[0], "sampled")
    graph("SFStreamVideo", session=begun, vae=tiny.vae, seconds=2.5, fps=16.0)
    streamed = probe(graph, Out(str(len(graph.prompt)), 1), "streamed")
    outputs = server.run(graph.prompt)
    ours = latents(outputs, sampled)
    assert ours.shape[2] == 12
    assert torch.equal(ours, latents(outputs, streamed)[:, :, :12])
    without = Graph()
    tiny = Tiny.of(without)
    probe(without, without("SFSampleChunks", session=session(without, tiny, KREA), chunks=4)[0], "refused")
    with pytest.raises(PromptFailed, match="connect Wan's VAE to 'vae' of Sample Chunks, or use Stream Video"):
        server.run(without.prompt)


def test_a_cache_in_ram_makes_the_same_video(server: Server) -> None:
    made = []
    for offload in (False, True):
        graph = Graph()
        begun = session(graph, Tiny.of(graph), {**CUSTOM, "kv_offload": offload, "kv_dtype": "int8"})
        number = probe(graph, graph("SFSampleChunks", session=begun, chunks=4)[0])
        made.append(latents(server.run(graph.prompt), number))
    assert torch.equal(*made)


@primary
def test_switch_prompt_recaches_in_one_pass_and_begins_a_shot(server: Server) -> None:
    shots = {**CUSTOM, "rules": "shot_offset=3, pin_shots=True"}
    made = {}
    for name, settings, switch in (
        ("plain", CUSTOM, {}),
        ("joint", CUSTOM, {"joint": True}),
        ("recache", CUSTOM, {"recache": True}),
        ("no shot", shots, {}),
        ("shot", shots, {"shot": True}),
    ):
        graph = Graph()
        tiny = Tiny.of(graph)
        begun = graph("SFSampleChunks", session=session(graph, tiny, settings), chunks=2)[0]
        text = graph("CLIPTextEncode", text="a blue square moving up on a white background", clip=tiny.clip)[0]
        node = graph("SFSwitchPrompt", **{"session": begun, "positive": text, "recache": False, **switch})
        number = probe(graph, graph("SFSampleChunks", session=node[0], chunks=1)[0], name)
        made[name] = latents(server.run(graph.prompt), number)[:, :, 6:]
    assert not torch.equal(made["plain"], made["joint"])
    assert not torch.equal(made["recache"], made["joint"])
    assert not torch.equal(made["no shot"], made["shot"])
    graph.prompt[node.number]["inputs"]["recache"] = True
    with pytest.raises(PromptFailed, match="'shot' does not go together with 'recache'"):
        server.run(graph.prompt)


@primary
def test_a_session_of_longlive_2_says_what_its_48_channels_need(server: Server) -> None:
    file = "longlive2_words.safetensors"
    models.put(server, "diffusion_models", file, models.wan(arch=replace(models.ARCH, in_dim=48, out_dim=48)))
    server.object_info()
    said = []
    for settings in (None, CUSTOM):
        graph = Graph()
        text = graph("ProbeConditioning", seed=1, rows=512, width=4096, scale=0.2, prompts=1)[0]
        model = graph("SFLoadModel", model_name=file, weight_dtype="default", preset="LongLive 2")[0]
        wired = {} if settings is None else {"settings": graph("SFRolloutSettings", **settings)[0]}
        node = graph("SFSession", model=model, positive=text, width=64, height=32, seed=0, **wired)
        probe(graph, node[0])
        said.append(server.run(graph.prompt)[node.number]["sf_text"][0])
    assert all("made for 24 frames a second" in text for text in said)
    assert "not those of LongLive 2" not in said[0]
    assert "48 channels, and the connected settings are not those of LongLive 2" in said[1]
    assert "solver='unipc'" in said[1]
