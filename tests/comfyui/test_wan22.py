"""LongLive 2.0 over ComfyUI's own Wan 2.2 MODEL and VAE: a small one of each, from core's loader and ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.comfyui import models
from tests.comfyui.graphs import Graph, Out, facts, latents, probe, tensor
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


def test_sizes_are_multiples_of_32(server: Server) -> None:
    models.put(server, "diffusion_models", FILE, STATE)
    graph = Graph()
    probe(graph, session(graph, loaded(graph, "ours"), width=80))
    with pytest.raises(PromptFailed, match="width is 80 pixels; this model makes multiples of 32"):
        server.run(graph.prompt)
