"""LongLive 2.0 over ComfyUI's own Wan 2.2 MODEL and VAE: a small one of each, from core's loader and ours."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from tests.comfyui import models
from tests.comfyui.graphs import Graph, Out, facts, forget_all, latents, probe, tensor
from tests.comfyui.sessions_api import post
from tests.files.formats import prefixed
from tools.comfyui.checkout import PRIMARY
from tools.comfyui.server import PromptFailed, Server

FILE = "longlive2_5B.safetensors"
STATE = models.wan(arch=replace(models.ARCH, in_dim=48, out_dim=48))


def session(graph: Graph, model: Out, width: int = 64, height: int = 32) -> Out:
    text = graph("ProbeConditioning", seed=1, rows=512, width=4096, scale=0.2, prompts=1)[0]
    return graph("SFSession", model=model, positive=text, width=width, height=height, seed=3)[0]


def loaded(graph: Graph, loader: str) -> Out:
    if loader == "ours":
        return graph("SFLoadModel", model_name=FILE, weight_dtype="default", preset="from the model")[0]
    model = graph("UNETLoader", unet_name=FILE, weight_dtype="default")[0]
    return graph("SFFromModel", model=model, preset="LongLive 2")[0]


def test_core_s_model_and_vae_play_longlive_2(server: Server) -> None:
    models.put(server, "diffusion_models", FILE, STATE)
    made = []
    for loader in ("ours", "core's"):
        graph = Graph()
        vae = graph("ProbeOtherVAE", family="wan 2.2")[0]
        picture = graph("EmptyImage", width=64, height=32, batch_size=1, color=0x804020)[0]
        begun = graph("SFStartFromImages", session=session(graph, loaded(graph, loader)), image=picture, vae=vae)[0]
        sampled = graph("SFSampleChunks", session=begun, chunks=1)[0]
        node = graph("SFDecodeChunks", session=sampled, vae=vae, fps=24.0)
        frames, decoded = node[0], node[1]
        looked = graph("ProbeTensor", image=frames, name=f"frames {loader[0]}").number
        number = probe(graph, decoded, "made")
        outputs = server.run(graph.prompt)
        made.append(latents(outputs, number))
        assert facts(outputs, number)["chunks"] == 1
        assert made[-1].shape == (1, 48, 8, 2, 4)  # the picture sits inside the first chunk of 8
        assert tensor(outputs, looked).shape == (29, 32, 64, 3)  # 1 + 7 x 4
    assert torch.equal(*made)


@pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)
def test_no_preset_of_another_family_lets_wan_22_in(server: Server) -> None:
    """Not from a MODEL, and not from a file that only a trainer's names tell; the page says so before the run."""
    forget_all(server)
    models.put(server, "diffusion_models", "merge.safetensors", STATE)
    models.put(server, "diffusion_models", "trained.safetensors", prefixed("generator.", STATE))
    server.object_info()
    message = r"models with latents of 16 channels, and this one has 48, .*Choose the preset 'LongLive 2'"
    for name, preset in (("merge.safetensors", "Self Forcing"), ("trained.safetensors", "SGF")):
        graph = Graph()
        probe(graph, session(graph, graph("SFLoadModel", model_name=name, weight_dtype="default", preset=preset)[0]))
        with pytest.raises(PromptFailed, match=message):
            server.run(graph.prompt)
        assert re.search(message, post(server, "/self_forcing/model", name=name, preset=preset)[1]["text"])
    graph = Graph()
    core = graph("UNETLoader", unet_name="merge.safetensors", weight_dtype="default")[0]
    probe(graph, session(graph, graph("SFFromModel", model=core, preset="LongLive")[0]))
    with pytest.raises(PromptFailed, match=message):
        server.run(graph.prompt)


@pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)
def test_the_preset_of_longlive_2_lets_an_unknown_file_in_and_says_so(server: Server) -> None:
    models.put(server, "diffusion_models", "merge.safetensors", STATE)
    server.object_info()
    graph = Graph()
    node = graph("SFLoadModel", model_name="merge.safetensors", weight_dtype="default", preset="LongLive 2")
    number = probe(graph, session(graph, node[0]))
    outputs = server.run(graph.prompt)
    assert facts(outputs, number)["chunks"] == 0
    (text,) = outputs[node.number]["sf_text"]
    assert text.startswith("not for streaming: Wan 2.2 itself")
    assert "LongLive 2: the preset that was chosen" in text
    models.put(server, "diffusion_models", "tiny16.safetensors", models.wan())
    server.object_info()
    other = post(server, "/self_forcing/model", name="tiny16.safetensors", preset="LongLive 2")
    assert "Mind: the preset 'LongLive 2' is of models with latents of 48 channels, and this one has 16" in str(other)


def test_sizes_are_multiples_of_32(server: Server) -> None:
    models.put(server, "diffusion_models", FILE, STATE)
    graph = Graph()
    probe(graph, session(graph, loaded(graph, "ours"), width=80))
    with pytest.raises(PromptFailed, match="width is 80 pixels; this model makes multiples of 32"):
        server.run(graph.prompt)
