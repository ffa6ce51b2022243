"""A model's name is its own, results are those of its exact state, and other kinds of models are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfyui import models
from tests.comfyui.graphs import Graph, Out, Tiny, forget_all, forget_chunks, latents, probe
from tests.comfyui.wan_graphs import from_model, sampled, session, unet
from tools.comfyui.server import PromptFailed, Server

STORED = ["fp32", "bf16", "fp16"]


def ours(server: Server, graph: Graph, name: str, state: dict[str, Tensor], dtype: str = "default") -> Out:
    models.put(server, "diffusion_models", name, state)
    return graph("SFLoadModel", model_name=name, weight_dtype=dtype, preset="from the model")[0]


def facts_of(server: Server, graph: Graph, *nodes: Out, dynamic: str = "no") -> list[dict[str, Any]]:
    numbers = [graph("ProbeModel", model=model, dynamic=dynamic).number for model in nodes]
    outputs = server.run(graph.prompt)
    return [outputs[number]["facts"][0] for number in numbers]


def made_again_by(server: Server) -> bool:
    """Whether core can load a MODEL again, as its nodes for several GPUs do: newer versions."""
    return server.checkout.version != "0.3.75"


def changed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Another model: most rows of a matrix differ, and none of the values that its name is made from."""
    name = "blocks.1.ffn.0.weight"
    weight = state[name].clone()
    kept = torch.linspace(0, weight.numel() - 1, 16, dtype=torch.float64).long()
    values = weight.view(-1)[kept].clone()
    weight = weight.flip(0).contiguous()
    weight.view(-1)[kept] = values
    return {**state, name: weight}


def test_a_model_has_one_name_in_every_number_format_and_by_every_loader(server: Server) -> None:
    graph = Graph()
    state = models.wan()
    nodes = [ours(server, graph, "base.safetensors", state, dtype) for dtype in STORED]
    found = facts_of(server, graph, *nodes, unet(server, graph, "base.safetensors", state))
    assert len({facts["fingerprint"] for facts in found}) == 1
    assert len({facts["state"] for facts in found[:3]}) == 3  # another rounding, another result
    assert found[0]["state"] == found[3]["state"]
    assert all(facts["made_again"] or not made_again_by(server) for facts in found[:3])


def test_a_session_loads_in_another_number_format(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    made = session(graph, ours(server, graph, "base.safetensors", models.wan(), "fp32"))
    saved = graph("SFSaveSession", session=made, filename_prefix="sessions/formats").number
    name = server.run(graph.prompt)[saved]["text"][0].split(":")[0]
    graph = Graph()
    for dtype in STORED[1:]:
        model = ours(server, graph, "base.safetensors", models.wan(), dtype)
        probe(graph, graph("SFLoadSession", model=model, file=name, allow_other_model=False)[0], dtype)
    server.run(graph.prompt)
    graph = Graph()
    other = ours(server, graph, "base-changed.safetensors", changed(models.wan()))
    probe(graph, graph("SFLoadSession", model=other, file=name, allow_other_model=False)[0])
    with pytest.raises(PromptFailed, match="but with other weights"):
        server.run(graph.prompt)


def test_a_name_does_not_change_when_weights_are_loaded_on_a_gpu(server: Server) -> None:
    """Core then casts some of them in place, without a backup."""
    forget_all(server)
    graph = Graph()
    plain = unet(server, graph, "base.safetensors", models.wan())
    before = facts_of(server, graph, plain, dynamic="before")[0]
    forget_all(server)
    graph = Graph()
    plain = unet(server, graph, "base.safetensors", models.wan())
    after = facts_of(server, graph, plain, dynamic="after")[0]
    assert (after["fingerprint"], after["state"]) == (before["fingerprint"], before["state"])
    forget_all(server)  # the weights are not what the loader made


def test_no_chunk_of_another_model_or_number_format_is_handed_out(server: Server) -> None:
    forget_all(server)

    def made(name: str, state: dict[str, Tensor], dtype: str) -> Tensor:
        graph = Graph()
        return sampled(server, graph, ours(server, graph, name, state, dtype), chunks=1)

    cases = [
        ("base.safetensors", models.wan(), "fp32"),
        ("base.safetensors", models.wan(), "bf16"),
        ("base-changed.safetensors", changed(models.wan()), "fp32"),
    ]
    results = [made(*case) for case in cases]
    for i, case in enumerate(cases[1:], 1):
        assert not torch.equal(results[i], results[0])
        forget_chunks(server)
        graph = Graph()
        graph("ProbeNothing", number=i)
        server.run(graph.prompt)
        assert torch.equal(made(*case), results[i])


def test_fp8_fast_is_another_state_than_fp8(server: Server) -> None:
    graph = Graph()
    nodes = [ours(server, graph, "base.safetensors", models.wan(), f"fp8_e4m3fn{end}") for end in ("", "_fast")]
    plain, fast = facts_of(server, graph, *nodes)
    assert plain["fingerprint"] == fast["fingerprint"]
    assert plain["state"] != fast["state"]


def test_two_strengths_of_a_lora_in_one_graph_are_two_models(server: Server) -> None:
    """Two branches over the same weights, with the same prompt: as each alone."""
    models.put(server, "loras", "lora.safetensors", models.lora()[0])

    def branches(*strengths: float) -> list[Tensor]:
        forget_all(server)
        graph, numbers = Graph(), []
        base = unet(server, graph, "base.safetensors", models.wan())
        for strength in strengths:
            lora = {"lora_name": "lora.safetensors", "strength_model": strength}
            model = from_model(graph, graph("LoraLoaderModelOnly", model=base, **lora)[0])
            made = graph("SFSampleChunks", session=session(graph, model), chunks=2)[0]
            numbers.append(probe(graph, made, f"strength-{strength}"))
        outputs = server.run(graph.prompt)
        return [latents(outputs, number) for number in numbers]

    together = branches(1.0, 0.3)
    assert not torch.equal(*together)
    for strength, result in zip((1.0, 0.3), together, strict=True):
        assert torch.equal(branches(strength)[0], result)


def test_a_quantised_file_stays_quantised(server: Server) -> None:
    """Scaled fp8, as published: the MODEL is the one of core's loader, and no larger."""
    forget_all(server)
    state: dict[str, Tensor] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, weight in models.wan().items():
        if weight.ndim == 2 and name.startswith("blocks"):
            scale = weight.abs().max() / 400
            state[name] = (weight / scale).to(torch.float8_e4m3fn)
            state[name.replace("weight", "scale_weight")] = scale
        else:
            state[name] = weight.bfloat16()
    graph = Graph()
    kept = ours(server, graph, "scaled-fp8.safetensors", state)
    theirs = unet(server, graph, "scaled-fp8.safetensors", state)
    facts, core = facts_of(server, graph, kept, theirs)
    assert facts["bytes"] == core["bytes"]
    assert facts["bytes"] == sum(w.numel() for n, w in models.wan().items() if w.ndim == 2 and n.startswith("blocks"))
    assert facts["state"] == core["state"]
    assert facts["fingerprint"] == core["fingerprint"]
    assert facts["made_again"] or not made_again_by(server)


NODES: dict[str, dict[str, Any]] = {
    "ModelSamplingContinuousEDM": {"sampling": "v_prediction", "sigma_max": 120.0, "sigma_min": 0.002},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": False},
    "ModelSamplingFlux": {"max_shift": 1.15, "base_shift": 0.5, "width": 64, "height": 64},
    "ModelSamplingStableCascade": {"shift": 2.0},
}


@pytest.mark.parametrize("node", NODES)
def test_the_noise_schedule_of_another_kind_of_model_is_refused(server: Server, node: str) -> None:
    graph = Graph()
    parts = Tiny.of(graph)
    probe(graph, parts.session(model=graph(node, model=parts.model, **NODES[node])[0]))
    with pytest.raises(PromptFailed, match="use ModelSamplingSD3, or remove the node"):
        server.run(graph.prompt)


def test_wan_2_2_with_its_own_latents_is_refused(server: Server) -> None:
    state = models.wan(arch=replace(models.ARCH, in_dim=48, out_dim=48))
    models.put(server, "diffusion_models", "wan2.2_ti2v_5B.safetensors", state)
    for loader, inputs in (
        ("SFLoadModel", {"model_name": "wan2.2_ti2v_5B.safetensors", "preset": "from the model"}),
        ("UNETLoader", {"unet_name": "wan2.2_ti2v_5B.safetensors"}),
    ):
        graph = Graph()
        model = graph(loader, weight_dtype="default", **inputs)[0]
        probe(graph, session(graph, model))
        with pytest.raises(PromptFailed, match=r"latents of 48 channels, as Wan 2\.2's 5B.*choose its preset"):
            server.run(graph.prompt)


@pytest.mark.parametrize(
    ("name", "remark"),
    [
        ("wan2.1_t2v_1.3B_fp16.safetensors", "not for streaming: Wan 2.1 itself"),
        ("wan2.2_t2v_high_noise_14B.safetensors", "not for streaming: Wan 2.2 itself"),
        ("krea-realtime.safetensors", "Krea Realtime 14B: by the name of the file"),
    ],
)
def test_what_a_user_should_know_of_a_file_is_said(server: Server, name: str, remark: str) -> None:
    forget_all(server)
    graph = Graph()
    probe(graph, session(graph, ours(server, graph, name, models.wan())))
    server.run(graph.prompt)
    assert remark in server.log_tail(60)


@pytest.mark.parametrize("chosen", [False, True])
def test_on_hopper_cudnns_attention_comes_first_unless_the_user_chose(server: Server, chosen: bool) -> None:
    graph = Graph()
    number = graph("ProbeHopper", model=Tiny.of(graph).model, chosen=chosen).number
    called = server.run(graph.prompt)[number]["called"][0]
    assert called == {"hopper": 0 if chosen else 1, "ada": 0}


def test_out_of_memory_is_recognised_on_every_device(server: Server) -> None:
    graph = Graph()
    number = graph("ProbeOutOfMemoryErrors").number
    found = server.run(graph.prompt)[number]["found"][0]
    assert found.pop("other") is False
    assert all(found.values()), found
