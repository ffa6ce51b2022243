"""Load Tiny Demo gives ordinary MODEL, CLIP and VAE objects: core's own nodes take them."""

from __future__ import annotations

import pytest
import torch

import sf_core
from sf_core import tiny
from tests.comfyui import models
from tests.comfyui.graphs import BLUE, Graph, Tiny, forget_all, latents, probe, tensor
from tools.comfyui.server import Server


def tiny_lora() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    file = {}
    for name, weight in tiny.load_transformer().named_parameters():
        if name.endswith("self_attn.q.weight"):
            layer = "diffusion_model." + name.removesuffix(".weight")
            file[f"{layer}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator) * 0.2
            file[f"{layer}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator) * 0.2
    return file


def test_loras_and_sampling_patches_go_on_them(server: Server) -> None:
    """The loader for MODEL and CLIP, clip skip, a shift: each is accepted, and the LoRA changes the video."""
    forget_all(server)
    models.put(server, "loras", "tiny.safetensors", tiny_lora())
    results = []
    for strength in (0.0, 1.0):
        graph = Graph()
        parts = Tiny.of(graph)
        strengths = {"strength_model": strength, "strength_clip": strength}
        loaded = graph("LoraLoader", model=parts.model, clip=parts.clip, lora_name="tiny.safetensors", **strengths)
        clip = graph("CLIPSetLastLayer", clip=loaded[1], stop_at_clip_layer=-1)[0]
        model = graph("ModelSamplingSD3", model=loaded[0], shift=5.0)[0]
        text = graph("CLIPTextEncode", text=BLUE, clip=clip)[0]
        inputs = {"model": model, "positive": text, "width": 64, "height": 64, "seed": 0}
        number = probe(graph, parts.sampled(graph("SFSession", **inputs)[0], 2))
        results.append(latents(server.run(graph.prompt), number))
    assert (results[0] - results[1]).abs().max() > 1e-2


@pytest.mark.parametrize(("frames", "kept"), [(1, 1), (7, 5), (9, 9)])
def test_the_vae_encodes_and_decodes_whole_and_tiled(server: Server, frames: int, kept: int) -> None:
    """A batch is a video, cut at the edges and at the end if it does not divide; all as by the pack's own network.

    Latents on a wire are the VAE's, as Wan 2.1's are: not normalised.
    """
    graph = Graph()
    parts = Tiny.of(graph)
    pictures = graph("ProbeFrames", frames=frames, width=72, height=68)[0]
    overlaps = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    encoded = graph("VAEEncode", pixels=pictures, vae=parts.vae)[0]
    tiled = graph("VAEEncodeTiled", pixels=pictures, vae=parts.vae, **overlaps)[0]
    whole = graph("VAEDecode", samples=encoded, vae=parts.vae)[0]
    in_tiles = graph("VAEDecodeTiled", samples=tiled, vae=parts.vae, **overlaps)[0]
    numbers = [graph("ProbeTensor", image=image, name=f"tiny {i}").number for i, image in enumerate((whole, in_tiles))]
    source, latent = (
        graph("ProbeTensor", name=name, **{kind: out}).number
        for name, kind, out in (("source", "image", pictures), ("encoded", "latent", encoded))
    )
    outputs = server.run(graph.prompt)
    decoded, from_tiles = (tensor(outputs, number) for number in numbers)
    vae = tiny.load_vae()
    want = vae.encode(tensor(outputs, source)[None, :kept, 2:66])
    assert want.shape == (1, 16, 1 + (kept - 1) // 4, 8, 9)
    mean, std = (values.view(-1, 1, 1, 1) for values in (vae.mean, vae.std))
    assert ((tensor(outputs, latent) - mean) / std - want).abs().max() <= 1e-4 * want.abs().max()
    assert decoded.shape == (kept, 64, 72, 3)
    assert (decoded - from_tiles).abs().max() <= 1e-5
    assert (decoded - vae.decode(want)[0]).abs().max() <= 1e-4


def test_a_core_sampler_without_guidance_runs(server: Server) -> None:
    """All frames at once, as core does with any Wan model; the log says what that is not."""
    graph = Graph()
    parts = Tiny.of(graph)
    latent = graph("VAEEncode", pixels=graph("ProbeFrames", frames=5, width=64, height=64)[0], vae=parts.vae)[0]
    text = parts.text(BLUE)
    settings = {"seed": 0, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    wires = {"model": parts.model, "positive": text, "negative": text, "latent_image": latent}
    image = graph("VAEDecode", samples=graph("KSampler", **wires, **settings)[0], vae=parts.vae)[0]
    number = graph("ProbeTensor", image=image, name="sampled").number
    frames = tensor(server.run(graph.prompt), number)
    assert frames.shape == (5, 64, 64, 3)
    assert frames.std() > 0.01
    assert "makes all frames at once" in server.log_text()


def test_the_weights_for_one_frame_at_a_time_bring_their_chunk(server: Server) -> None:
    graph = Graph()
    loaded = graph("SFLoadTiny", weights="frame by frame")
    parts = Tiny(graph, loaded[0], loaded[1], loaded[2])
    number = probe(graph, parts.sampled(parts.session(BLUE), 4))
    made = latents(server.run(graph.prompt), number)
    assert made.shape[2] == 4
    model = tiny.load_transformer(framewise=True)
    session = sf_core.Session.start(model, tiny.load_text().encode(BLUE))
    for _ in range(4):
        session, _ = session.next_chunk()
    assert (made - session.latents).abs().max() < 1e-4
