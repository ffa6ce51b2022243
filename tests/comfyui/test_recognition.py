"""Every family's checkpoint, in miniature under its published names, loads with its settings or says what it needs."""

from __future__ import annotations

from typing import Any

import pytest

import sf_core
from sf_core.files.published_models import format_settings
from sf_core.model.two_sets import memory_name
from tests.comfyui import models
from tests.comfyui.graphs import Graph, forget_all
from tests.comfyui.sessions_api import post
from tests.comfyui.wan_graphs import SIZE
from tests.files.formats import State, diffusers, prefixed
from tools.comfyui.server import Server

FSDP = "model._fsdp_wrapped_module."


def wan(form: str) -> dict[str, Any]:
    """The weights in the form in which a family publishes them."""
    state = models.wan()
    plain = prefixed("model.", state)
    match form:
        case "group":
            return {"generator": plain}
        case "both groups":
            return {"generator": plain, "generator_ema": prefixed(FSDP, state)}
        case "model.":
            return plain
        case "diffusers":
            return {diffusers(name): tensor for name, tensor in state.items()}
        case "rcm":
            rows = {**state, "patch_embedding.weight": state["patch_embedding.weight"].flatten(1)}
            return prefixed("net.", rows)
        case "two sets":
            both = state | {memory_name(name): tensor for name, tensor in models.wan(5).items()}
            return {"generator_ema": prefixed(FSDP, both)}
        case "peft":
            return {"generator": prefixed("base_model.model.", packed(state))}
        case _:
            return state


def packed(state: State) -> State:
    """A trainer's model with PEFT's layers inside, of no effect."""
    inside: State = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        in_lora = name.startswith("blocks.") and f"{layer}.weight" in state and state[f"{layer}.weight"].ndim == 2
        inside[f"{layer}.base_layer.{kind}" if in_lora else name] = tensor
        if in_lora and kind == "weight":
            inside[f"{layer}.lora_A.default.weight"] = tensor[:4] * 0
            inside[f"{layer}.lora_B.default.weight"] = tensor[:, :4].contiguous() * 0
    return inside


# file as published (in the folder of its repository, where the name says nothing): form, preset
FILES = {
    "self_forcing_dmd.pt": ("both groups", "Self Forcing"),
    "chunkwise/causal_forcing.pt": ("group", "Causal Forcing, chunk-wise"),
    "framewise/causal_forcing.pt": ("group", "Causal Forcing, frame-wise"),
    "framewise-2step.pt": ("group", "Causal Forcing++, frame-wise, 2 steps"),
    "longvideo.pt": ("both groups", "Causal Forcing, long video"),
    "rolling_forcing_dmd.pt": ("both groups", "Rolling Forcing"),
    "longlive_base.pt": ("group", "LongLive"),
    "rewardforcing.pt": ("model.", "Reward Forcing"),
    "infinite-forcing/vsink1.pt": ("both groups", "Infinite-Forcing"),
    "self_gradient_forcing_plus/chunkwise_model.pt": ("two sets", "SGF+"),
    "self_gradient_forcing_plus/framewise_model.pt": ("two sets", "SGF+, frame-wise"),
    "self_gradient_forcing/chunkwise_model.pt": ("both groups", "SGF"),
    "self_gradient_forcing/framewise_model.pt": ("both groups", "SGF, frame-wise"),
    "Causal_rCM_Wan2.1_T2V_1.3B_480p_dmd_c3-3.pt": ("rcm", "Causal-rCM, c3-3, 4 steps"),
    "Causal_rCM_Wan2.1_T2V_1.3B_480p_dmd_c1-1_step2.pt": ("rcm", "Causal-rCM, c1-1, 2 steps"),
    "krea-realtime-video-14b.safetensors": ("model.", "Krea Realtime 14B"),
    "causvid/model.pt": ("group", "CausVid"),
    "MemFlow/base.pt": ("group", "MemFlow"),
    "cmgrpo_raven_full.pt": ("peft", "RAVEN"),
    "SFWan2.1-T2V-1.3B-Diffusers/diffusion_pytorch_model.safetensors": ("diffusers", "Self Forcing"),
}
# and those that need a word of the user
ASKING = {
    "causal_forcing.pt": ("group", "It could be: Causal Forcing, chunk-wise; Causal Forcing, frame-wise"),
    "ar/two_sets.pt": (
        "two sets",
        "it has two sets of weights, as SGF+ alone has. It could be: SGF+",
    ),
    "unnamed.pt": ("rcm", "its patch embedding is a Linear layer, as Causal-rCM's alone is"),
    "ar/model.pt": ("both groups", "a trainer saved this file, and neither its weights nor its name tell the model"),
}


def put(server: Server, name: str, form: str) -> None:
    models.put(server, "diffusion_models", name, wan(form))


def said(server: Server, name: str, preset: str = "from the model") -> str:
    status, answer = post(server, "/self_forcing/model", name=name, preset=preset)
    assert status == 200, answer
    return str(answer["text"])


def test_every_familys_file_loads_with_its_settings_and_says_so_before(server: Server) -> None:
    forget_all(server)
    for name, (form, _) in FILES.items():
        put(server, name, form)
    server.object_info()  # lists the new files
    for name, (_, preset) in FILES.items():
        settings = format_settings(sf_core.preset(preset))
        text = said(server, name)
        assert text.startswith(f"{preset}: "), name
        assert settings in text
        graph = Graph()
        node = graph("SFLoadModel", model_name=name, weight_dtype="default", preset="from the model")
        positive = graph("ProbeConditioning", seed=1, rows=512, width=4096, scale=0.2, prompts=1)[0]
        made = graph("SFSession", model=node[0], positive=positive, width=SIZE, height=SIZE, seed=0)[0]
        info = graph("SFSessionInfo", session=made).number
        outputs = server.run(graph.prompt)
        assert outputs[node.number]["sf_text"] == [text]
        assert settings.split(", denoising")[0] in outputs[info]["sf_text"][0]


def test_a_file_that_nothing_tells_asks_for_the_preset(server: Server) -> None:
    for name, (form, _) in ASKING.items():
        put(server, name, form)
    server.object_info()
    for name, (_, question) in ASKING.items():
        text = said(server, name)
        assert text.startswith("Choose the preset: ")
        assert question in text
        assert said(server, name, "LongLive").startswith("LongLive: the preset that was chosen. chunk_frames=3")


def test_a_preset_that_contradicts_the_file_is_named(server: Server) -> None:
    put(server, "rewardforcing.pt", "model.")
    server.object_info()
    text = said(server, "rewardforcing.pt", "LongLive")
    assert "Mind: the file looks like Reward Forcing: by the name of the file" in text


@pytest.mark.parametrize("name", ["../models/x.pt", "not there.pt"])
def test_files_that_are_not_listed_are_not_looked_at(server: Server, name: str) -> None:
    assert said(server, name).startswith(f"There is no file {name!r} in models/diffusion_models.")


def test_a_preset_that_does_not_exist_is_refused(server: Server) -> None:
    status, answer = post(server, "/self_forcing/model", name="not there.pt", preset="none")
    assert (status, answer["error"]) == (400, "there is no preset 'none'")
