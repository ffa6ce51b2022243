"""MODEL is ComfyUI's: LoRA, fp8, any loader and any attention apply, and the weights are its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sf_core
from sf_core import tiny
from tests.comfyui import models
from tests.comfyui.graphs import BLUE, Graph, Out, Tiny, facts, forget_all, forget_chunks, latents, probe
from tests.comfyui.wan_graphs import CHUNKS, SIZE, base_with_lora, from_model, sampled, session, unet
from tools.comfyui.server import Server


def test_cores_lora_gives_the_latents_of_merged_weights(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    with_lora = sampled(server, graph, from_model(graph, base_with_lora(server, graph, models.STRENGTH)))
    graph = Graph()
    merged = sampled(server, graph, unet(server, graph, "merged.safetensors", models.merged(models.STRENGTH)))
    graph = Graph()
    base = sampled(server, graph, unet(server, graph, "base.safetensors", models.wan()))
    assert (with_lora - merged).abs().max() <= 1e-5
    assert (with_lora - base).abs().max() > 1e-2


def test_a_merge_is_a_model_like_any_other(server: Server) -> None:
    """Core's merge of two gives the latents of averaged weights, and made again is the same model: a session loads."""

    def merge(graph: Graph) -> Out:
        first = unet(server, graph, "base.safetensors", models.wan())
        second = unet(server, graph, "other.safetensors", models.wan(7))
        return graph("ModelMergeSimple", model1=first, model2=second, ratio=0.25)[0]

    forget_all(server)
    graph = Graph()
    made = graph("SFSampleChunks", session=session(graph, from_model(graph, merge(graph))), chunks=CHUNKS)[0]
    saved = graph("SFSaveSession", session=made, filename_prefix="sessions/merge").number
    number = probe(graph, made)
    outputs = server.run(graph.prompt)
    # as everywhere in ComfyUI, `modulation` is not patched: what is merged of it is the first model's
    mean = {name: 0.25 * weight + 0.75 * models.wan(7)[name] for name, weight in models.wan().items()}
    mean |= {name: weight for name, weight in models.wan().items() if "modulation" in name}
    graph = Graph()
    want = sampled(server, graph, unet(server, graph, "mean.safetensors", mean))
    assert (latents(outputs, number) - want).abs().max() <= 1e-5
    forget_all(server)
    graph = Graph()
    name = outputs[saved]["text"][0].split(":")[0]
    number = probe(graph, graph("SFLoadSession", model=merge(graph), file=name, allow_other_model=False)[0])
    assert facts(server.run(graph.prompt), number)["chunks"] == CHUNKS


def test_a_lora_above_our_node_counts_too(server: Server) -> None:
    """The settings ride on the MODEL through any patch."""
    forget_all(server)
    graph = Graph()
    base = graph("SFFromModel", model=unet(server, graph, "base.safetensors", models.wan()), preset="LongLive")[0]
    models.put(server, "loras", "lora.safetensors", models.lora()[0])
    patched = graph("LoraLoaderModelOnly", model=base, lora_name="lora.safetensors", strength_model=0.7)[0]
    text = graph("ProbeConditioning", seed=1, rows=512, width=4096, scale=0.2, prompts=1)[0]
    made = graph("SFSession", model=patched, positive=text, width=SIZE, height=SIZE, seed=0)[0]
    number = graph("SFSessionInfo", session=made).number
    assert "window_frames=12, sink_frames=3" in server.run(graph.prompt)[number]["text"][0]


def test_changing_the_strength_between_two_chunks_never_reuses_the_others_cache(server: Server) -> None:
    """Two chunks under one strength, the third under another: as a server that never had the first one's cache."""
    forget_all(server)
    graph = Graph()
    two = graph("SFSampleChunks", session=session(graph, base_with_lora(server, graph, 0.7)), chunks=2)[0]
    saved = graph("SFSaveSession", session=two, filename_prefix="sessions/strength").number
    path = server.run(graph.prompt)[saved]["text"][0]
    name = path.split(":")[0]

    def third(strength: float) -> Tensor:
        graph = Graph()
        loaded = graph(
            "SFLoadSession", model=base_with_lora(server, graph, strength), file=name, allow_other_model=True
        )
        number = probe(graph, graph("SFSampleChunks", session=loaded[0], chunks=1)[0])
        return latents(server.run(graph.prompt), number)

    warm = {strength: third(strength) for strength in (0.7, 0.3, 0.7)}
    for strength, want in warm.items():
        forget_all(server)
        assert torch.equal(third(strength), want)
    assert not torch.equal(warm[0.7], warm[0.3])


def test_the_attention_override_sees_every_layer_of_every_forward(server: Server) -> None:
    """Self-attention and cross-attention of each layer; a pass that only writes needs neither in its last layer."""
    forget_all(server)
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    model = graph("ProbeAttention", model=base, name="count")[0]
    made = graph("SFSampleChunks", session=session(graph, model), chunks=CHUNKS)[0]
    number = graph("ProbeCalls", name="count", after=made).number
    layers, steps, writes = models.ARCH.num_layers, 4, CHUNKS - 1
    expected = 2 * layers * steps * CHUNKS + 2 * (layers - 1) * writes
    outputs = server.run(graph.prompt)
    assert outputs[number]["calls"] == [expected]
    assert outputs[number]["functions"] == ["attention_pytorch"]  # which the server's flag chose


def test_no_weight_is_read_by_the_pack(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    clean = sampled(server, graph, base)
    forget_all(server)
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    assert torch.equal(sampled(server, graph, graph("ProbePoison", model=base, check=False)[0]), clean)
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    with pytest.raises(Exception, match="reads the weight"):
        sampled(server, graph, graph("ProbePoison", model=base, check=True)[0])


def test_weights_are_shared_not_copied(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    numbers = [
        probe(graph, session(graph, model), name) for name, model in (("a", base), ("b", from_model(graph, base)))
    ]
    outputs = server.run(graph.prompt)
    assert facts(outputs, numbers[0])["pointers"] == facts(outputs, numbers[1])["pointers"]


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_fp8_weights_give_the_latents_of_what_they_round_to(server: Server, dtype: str) -> None:
    forget_all(server)
    kind = {"fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}[dtype]
    rounded = {n: w if n.startswith("patch_embedding") else w.to(kind).float() for n, w in models.wan().items()}
    graph = Graph()
    want = sampled(server, graph, unet(server, graph, f"rounded-{dtype}.safetensors", rounded))
    graph = Graph()
    fp8 = sampled(server, graph, unet(server, graph, "base.safetensors", models.wan(), dtype))
    assert (fp8 - want).abs().max() <= 1e-5
    graph = Graph()
    models.put(server, "diffusion_models", "base.safetensors", models.wan())
    ours = graph("SFLoadModel", model_name="base.safetensors", weight_dtype=dtype, preset="from the model")[0]
    assert torch.equal(sampled(server, graph, ours), fp8)


def test_our_loader_reads_what_trainers_write(server: Server) -> None:
    """A .pt with averaged weights under a prefix is the same MODEL as the plain file through core's loader."""
    forget_all(server)
    trained = {
        "generator": {f"model.{name}": torch.zeros_like(weight) for name, weight in models.wan().items()},
        "generator_ema": {f"model._fsdp_wrapped_module.{name}": weight for name, weight in models.wan().items()},
    }
    models.put(server, "diffusion_models", "self_forcing_dmd.pt", trained)  # type: ignore[arg-type]
    graph = Graph()
    want = sampled(server, graph, unet(server, graph, "base.safetensors", models.wan()))
    graph = Graph()
    ours = graph("SFLoadModel", model_name="self_forcing_dmd.pt", weight_dtype="default", preset="from the model")[0]
    forget_chunks(server)
    assert torch.equal(sampled(server, graph, ours), want)


def test_the_shift_of_a_core_node_counts_without_settings(server: Server) -> None:
    graph = Graph()
    base = unet(server, graph, "base.safetensors", models.wan())
    shifted = graph("ModelSamplingSD3", model=from_model(graph, base), shift=8.0)[0]
    text = graph("ProbeConditioning", seed=1, rows=512, width=4096, scale=0.2, prompts=1)[0]
    numbers = {}
    for shift, model in ((8.0, shifted), (5.0, base)):
        made = graph("SFSession", model=model, positive=text, width=SIZE, height=SIZE, seed=0)[0]
        numbers[shift] = graph("SFSessionInfo", session=made).number
    outputs = server.run(graph.prompt)
    assert all(f"shift={shift}" in outputs[number]["text"][0] for shift, number in numbers.items())


def test_the_tiny_model_makes_the_video_that_it_makes_without_comfyui(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    parts = Tiny.of(graph)
    number = probe(graph, parts.sampled(parts.session(BLUE, seed=5), 6))
    theirs = latents(server.run(graph.prompt), number)
    session = sf_core.Session.start(tiny.load_transformer(), tiny.load_text().encode(BLUE), seed=5)
    for _ in range(6):
        session, _ = session.next_chunk()
    assert (theirs - session.latents).abs().max() <= 1e-4 * session.latents.abs().max()
