"""Files of every format load: quantised ones stay small where ComfyUI can keep them, and none is silently wrong."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

import sf_core
from sf_core.model.two_sets import memory_name
from tests.comfyui import models
from tests.comfyui.graphs import Graph, forget_all
from tests.comfyui.test_identity import facts_of
from tests.comfyui.wan_graphs import sampled
from tests.files.formats import State, diffusers, prefixed
from tools.comfyui.server import Server

FP8 = torch.float8_e4m3fn
IN_NEWER = {"mxfp8", "int8_tensorwise"}  # formats that ComfyUI 0.33 keeps and 0.3.75 does not know


def quantised(kind: str) -> tuple[State, State]:
    """Weights of blocks in a format, by names of parts, and the numbers that they stand for."""
    stored: State = {}
    numbers: State = {}
    for name, weight in models.wan().items():
        if weight.ndim != 2 or not name.startswith("blocks"):
            stored[name] = numbers[name] = weight.bfloat16()
            continue
        layer = name.removesuffix(".weight")
        match kind:
            case "a tensor" | "float8_e4m3fn":
                factor = weight.abs().max() / 448
            case "int8_tensorwise":
                factor = weight.abs().amax(1, keepdim=True) / 127
            case "mxfp8":
                parts = weight.view(len(weight), -1, 32)
                factor = (parts.abs().amax(-1) / 448).to(torch.float8_e8m0fnu)
            case _:
                factor = weight.abs().amax(1, keepdim=True) / 448
        if kind == "mxfp8":
            whole = (parts / factor.float()[..., None]).to(FP8)
            numbers[name] = (whole.float() * factor.float()[..., None]).view(weight.shape)
            down, across = -(-factor.shape[0] // 128), factor.shape[1] // 4
            tiles = factor.view(torch.uint8).view(down, 4, 32, across, 4).permute(0, 3, 2, 1, 4).contiguous()
            stored[name], factor = whole.view(weight.shape), tiles.view(down * 128, across * 4)
        else:
            dtype = torch.int8 if kind == "int8_tensorwise" else FP8
            stored[name] = ((weight / factor).round() if dtype == torch.int8 else weight / factor).to(dtype)
            numbers[name] = stored[name].float() * factor
        stored[f"{layer}.weight_scale"] = factor
        if kind in ("float8_e4m3fn", *IN_NEWER):
            mark = {"format": kind, **({"full_precision_matrix_mult": True} if "float8" in kind else {})}
            stored[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(mark).encode()), dtype=torch.uint8)
    return stored, numbers


def renamed(kind: str, form: str) -> State:
    """The quantised weights as trainers or diffusers name them."""
    stored, _ = quantised(kind)
    match form:
        case "generator":
            return {"generator_ema": prefixed("model._fsdp_wrapped_module.", stored)}  # type: ignore[dict-item]
        case "diffusers":
            names = {name: diffusers(name) for name in models.wan()}
            layers = {name.rpartition(".")[0]: other.rpartition(".")[0] for name, other in names.items()}
            return {
                names.get(n) or f"{layers[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": t for n, t in stored.items()
            }
        case _:
            return stored


CASES = [
    ("a tensor", "plain", ".safetensors"),
    ("a tensor", "generator", ".pt"),
    ("a tensor", "diffusers", ".safetensors"),
    ("a channel", "plain", ".safetensors"),
    ("float8_e4m3fn", "plain", ".safetensors"),
    ("int8_tensorwise", "generator", ".pt"),
    ("mxfp8", "plain", ".safetensors"),
]


@pytest.mark.parametrize(("kind", "form", "ending"), CASES)
def test_a_quantised_file_plays_as_what_it_stands_for_and_stays_small(
    server: Server, kind: str, form: str, ending: str
) -> None:
    forget_all(server)
    name = f"quantised-{kind.replace(' ', '-')}-{form}{ending}"
    models.put(server, "diffusion_models", name, renamed(kind, form))
    models.put(server, "diffusion_models", f"numbers-{kind}.safetensors", quantised(kind)[1])
    graph = Graph()
    model = graph("SFLoadModel", model_name=name, weight_dtype="default", preset="from the model")[0]
    (facts,) = facts_of(server, graph, model)
    newer = server.checkout.version != "0.3.75"
    kept = kind in ("a tensor", "float8_e4m3fn") or (newer and kind in IN_NEWER)
    in_blocks = sum(w.numel() for n, w in models.wan().items() if w.ndim == 2 and n.startswith("blocks"))
    assert facts["bytes"] == in_blocks if kept else facts["bytes"] >= 2 * in_blocks
    graph = Graph()
    loaded = graph("SFLoadModel", model_name=name, weight_dtype="default", preset="from the model")[0]
    ours = sampled(server, graph, loaded)
    forget_all(server)
    graph = Graph()
    plain = graph("UNETLoader", unet_name=f"numbers-{kind}.safetensors", weight_dtype="default")[0]
    want = sampled(server, graph, plain)
    tolerance = 0.15 if kind in IN_NEWER and kept else 0.05  # these round activations too; bf16 rounds weights
    assert float((ours - want).norm() / want.norm()) < tolerance


def test_a_model_in_several_files_is_loaded_by_any_of_them(server: Server) -> None:
    forget_all(server)
    state, names = models.wan(), list(models.wan())
    parts = [f"shards/wan-{number:05}-of-00002.safetensors" for number in (1, 2)]
    for number, part in enumerate(parts):
        models.put(server, "diffusion_models", part, {name: state[name] for name in names[number::2]})
    models.put(server, "diffusion_models", "base.safetensors", state)
    graph = Graph()
    nodes = [
        graph("SFLoadModel", model_name=name, weight_dtype="default", preset="from the model")[0]
        for name in (*parts, "base.safetensors")
    ]
    assert len({facts["state"] for facts in facts_of(server, graph, *nodes)}) == 1


def test_two_sets_are_one_model_whose_loras_apply_to_both(server: Server) -> None:
    """Equal sets are as one set, with a LoRA too; another second set changes the result, the bytes and the name."""
    models.put(server, "loras", "lora.safetensors", models.lora()[0])
    models.put(server, "diffusion_models", "base.safetensors", models.wan())
    for name, second in (("equal.safetensors", models.wan()), ("two.safetensors", models.wan(3))):
        both = models.wan() | {memory_name(key): weight for key, weight in second.items()}
        models.put(server, "diffusion_models", name, both)

    def made(name: str, lora: bool) -> Tensor:
        forget_all(server)
        graph = Graph()
        model = graph("SFLoadModel", model_name=name, weight_dtype="default", preset="from the model")[0]
        if lora:
            inputs = {"lora_name": "lora.safetensors", "strength_model": 0.7}
            model = graph("LoraLoaderModelOnly", model=model, **inputs)[0]
        return sampled(server, graph, model)

    for lora in (False, True):
        one = made("base.safetensors", lora)
        assert float((made("equal.safetensors", lora) - one).abs().max()) < 1e-5
        assert float((made("two.safetensors", lora) - one).abs().max()) > 1e-2
    graph = Graph()
    nodes = [
        graph("SFLoadModel", model_name=name, weight_dtype="default", preset="from the model")[0]
        for name in ("base.safetensors", "equal.safetensors", "two.safetensors")
    ]
    facts = facts_of(server, graph, *nodes)
    assert len({one["fingerprint"] for one in facts}) == 3
    library = sf_core.load_model(server.base / "models" / "diffusion_models" / "two.safetensors")
    assert facts[2]["fingerprint"] == library.fingerprint
