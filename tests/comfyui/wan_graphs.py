"""Graphs of a small random Wan transformer in ComfyUI's own loaders."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.comfyui import models
from tests.comfyui.graphs import Graph, Out, latents, probe
from tools.comfyui.server import Server

CHUNKS, SIZE = 3, 64  # pixels: 8 x 8 latents, 16 tokens a frame

CUSTOM = {
    "preset": "custom",
    "chunk_frames": 3,
    "window_frames": 7,
    "sink_frames": 1,
    "sink_position": "absolute",
    "denoising_steps": "1000, 750, 500, 250",
    "shift": 5.0,
    "warp_steps": True,
    "context_noise": 0.0,
    "first_chunk_frames": 0,
    "first_chunk_steps": "",
}


def session(graph: Graph, model: Out, seed: int = 0, **others: Any) -> Out:
    """Add a session over random text, with other settings than `CUSTOM` where they are given."""
    settings = graph("SFRolloutSettings", **{**CUSTOM, **others})[0]
    text = graph("ProbeConditioning", seed=1, rows=512, width=4096, scale=0.2, prompts=1)[0]
    inputs = {"model": model, "positive": text, "width": SIZE, "height": SIZE, "seed": seed}
    return graph("SFSession", settings=settings, **inputs)[0]


def sampled(server: Server, graph: Graph, model: Out, chunks: int = CHUNKS) -> Tensor:
    """Run a graph with a session of ``model``; return the latents."""
    number = probe(graph, graph("SFSampleChunks", session=session(graph, model), chunks=chunks)[0], "model")
    return latents(server.run(graph.prompt), number)


def unet(server: Server, graph: Graph, name: str, state: dict[str, Tensor], dtype: str = "default") -> Out:
    """Add ComfyUI's loader of a file with these weights."""
    models.put(server, "diffusion_models", name, state)
    return graph("UNETLoader", unet_name=name, weight_dtype=dtype)[0]


def base_with_lora(server: Server, graph: Graph, strength: float) -> Out:
    """Add a model with a LoRA."""
    models.put(server, "loras", "lora.safetensors", models.lora()[0])
    base = unet(server, graph, "base.safetensors", models.wan())
    inputs = {"lora_name": "lora.safetensors", "strength_model": strength}
    return graph("LoraLoaderModelOnly", model=base, **inputs)[0]


def from_model(graph: Graph, model: Out) -> Out:
    """Add the node that takes a loaded model."""
    return graph("SFFromModel", model=model, preset="from the model")[0]
