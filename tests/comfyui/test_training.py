"""Training from the canvas: what it learns, an interrupt that loses nothing, results that every loader takes."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import sf_core
from benchmarks.tiny_world.evaluate import frames_of
from sf_core import tiny
from tests.comfyui import models
from tests.comfyui.graphs import BLUE, RED, Graph, latents, probe
from tests.comfyui.training_graphs import teacher, train
from tests.helpers import relative
from tools.comfyui.server import PromptFailed, PromptInterrupted, Server

STEPS = 3 + 3 * 5
TEACHER = tiny.FOLDER / "teacher.safetensors"


def trained(server: Server, name: str, **changes: Any) -> dict[str, Any]:
    graph = Graph()
    node = train(graph, name, vae=teacher(graph).vae, **changes)
    state: dict[str, Any] = server.run(graph.prompt)[node.number]["sf_run"][0]
    return state


def file_of(server: Server, name: str, kind: str = "loras") -> Path:
    return server.base / "models" / kind / f"{name}.safetensors"


def teachers(server: Server, name: str) -> list[Path]:
    """The teacher's files in the folder of a training."""
    return list((server.base / "output" / "self_forcing_training" / name).glob("teacher-*.safetensors"))


def lora(server: Server, name: str) -> dict[str, Tensor]:
    return load_file(file_of(server, name))


def sampled(model: sf_core.CausalWan) -> Tensor:
    session = sf_core.Session.start(model, tiny.load_text().encode(BLUE), seed=3)
    for _ in range(3):
        session = session.next_chunk()[0]
    return session.latents


def test_interrupted_again_and_again_it_learns_what_an_undisturbed_one_does(server: Server) -> None:
    updates: dict[str, Any] = {"steps": 3}  # enough that none ends before the interrupt
    state = trained(server, "undisturbed", **updates)
    assert not teachers(server, "undisturbed")  # it is large, and can be written again
    assert (state["state"], state["chunk"], state["chunks"]) == ("ended", STEPS, STEPS)
    stops = []
    for at in (2, 5, 9):  # in the causal start, and twice in what follows
        graph = Graph()
        train(graph, "disturbed", vae=teacher(graph).vae, **updates)
        with server.events("training") as events:
            number = server.submit(graph.prompt, client_id="training")
            events.wait_for(lambda e, at=at: e.kind == "self_forcing.run" and e.data["chunk"] >= at)  # type: ignore[misc]
            server.interrupt()
            with pytest.raises(PromptInterrupted):
                server.wait(number)
            told = events.wait_for(lambda e: e.kind == "self_forcing.run" and e.data["state"] == "interrupted").data
        assert told["training"]["file"] == "loras/disturbed.safetensors"
        stops.append((told["chunk"], lora(server, "disturbed")))
    assert all(first < second for (first, _), (second, _) in pairwise(stops))
    assert trained(server, "disturbed", **updates)["chunk"] == STEPS
    wanted, found = lora(server, "undisturbed"), lora(server, "disturbed")
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert not all(torch.equal(stops[0][1][name], tensor) for name, tensor in wanted.items())


def test_those_who_watch_see_losses_and_samples(server: Server) -> None:
    graph = Graph()
    train(graph, "watched", vae=teacher(graph).vae)
    with server.events("watching") as events:
        server.post("/self_forcing/attach", {"client_id": "watching"})
        server.run(graph.prompt, client_id="watching")
        events.wait_for_end()
    states = [event.data for event in events.of("self_forcing.run")]
    preparing = [one["note"] for one in states if not one["training"] and one["note"]]
    assert re.fullmatch(r"solving the teacher's trajectories: 1 of \d+, \d\d:\d\d left", preparing[0])
    assert states[-1]["note"] == ""
    told = [one for one in states if one["training"]]
    assert {one["training"]["stage"] for one in told} == {"causal", "self-forcing"}
    last = told[-1]["training"]
    assert (last["step"], last["of"]) == (2, 2)
    losses = last["losses"]
    assert len(losses["critic"]) == 10
    assert len(losses["generator"]) == 3 + 2
    samples = events.of("self_forcing.frames")
    # at the end of the causal start, and with each of the generator's updates
    assert sum(event.data["count"] for event in samples) == 3 * frames_of(6)
    assert sorted(n for event in samples for n in event.data["numbers"]) == list(range(3 * frames_of(6)))
    assert [event for event in events.of("text") if "self forcing 2/2" in event.data["text"]]


def test_core_and_the_nodes_own_model_and_the_command_line_agree_on_the_lora(server: Server) -> None:
    graph = Graph()
    parts = teacher(graph)
    node = train(graph, "agreed", vae=parts.vae)
    loaded = graph("LoraLoaderModelOnly", model=parts.model, lora_name="agreed.safetensors", strength_model=1.0)[0]
    trained(server, "agreed")
    made = sf_core.load_model(TEACHER, lora=file_of(server, "agreed"))
    numbers = [probe(graph, parts.sampled(parts.session(BLUE, seed=3, model=one), 3)) for one in (node[0], loaded)]
    before = len(server.log_text())
    outputs = server.run(graph.prompt)
    wanted, plain = sampled(made), sampled(tiny.load_teacher())
    assert relative(wanted, plain) > 0.01
    for number in numbers:
        assert relative(latents(outputs, number), wanted) < 1e-4
    assert "lora key not loaded" not in server.log_text()[before:]


def test_a_whole_model_is_one_for_load_self_forcing_model(server: Server) -> None:
    brief: dict[str, Any] = {"result": "whole model", "start_steps": 0, "steps": 1}
    trained(server, "entire", **brief)
    made = sf_core.load_model(file_of(server, "entire", "diffusion_models"))
    graph = Graph()
    parts = teacher(graph)
    node = train(graph, "entire", vae=parts.vae, **brief)
    number = probe(graph, parts.sampled(parts.session(BLUE, seed=3, model=node[0]), 3))
    assert relative(latents(server.run(graph.prompt), number), sampled(made)) < 1e-4
    loaders = server.get("/object_info/SFLoadModel")["SFLoadModel"]["input"]["required"]
    assert "entire.safetensors" in str(loaders["model_name"])


def test_the_teacher_is_the_model_with_its_loras(server: Server) -> None:
    trained(server, "before")
    graph = Graph()
    patched = graph(
        "LoraLoaderModelOnly", model=teacher(graph).model, lora_name="before.safetensors", strength_model=0.5
    )
    train(graph, "over", model=patched[0], start_steps=0, steps=1000)
    with server.events("teacher") as events:
        number = server.submit(graph.prompt, client_id="teacher")
        events.wait_for(lambda e: e.kind == "self_forcing.run" and e.data["chunk"] >= 1)
        server.interrupt()
        with pytest.raises(PromptInterrupted):
            server.wait(number)
    (written,) = teachers(server, "over")
    weights = load_file(written)
    merged = sf_core.load_model(TEACHER, lora=file_of(server, "before"), lora_strength=0.5).state_dict()
    assert all(relative(weights[name], tensor) < 1e-5 for name, tensor in merged.items())


SCALE = 0.02


@pytest.mark.parametrize("kind", ["fp8", "scaled fp8"])
def test_a_teacher_in_fp8_is_trained_over_as_what_it_holds(server: Server, kind: str) -> None:
    """Of the size that ComfyUI reads off a file; so this CLIP is none of its, which is said."""
    state, layer = models.wan(), "blocks.0.ffn.0.weight"
    rounded = (state[layer] / SCALE).to(torch.float8_e4m3fn)
    wanted, loader = state[layer].to(torch.float8_e4m3fn).float(), {"weight_dtype": "fp8_e4m3fn"}
    if kind == "scaled fp8":
        wanted, loader = rounded.float() * SCALE, {"weight_dtype": "default"}
        state |= {layer: rounded, layer.replace("weight", "scale_weight"): torch.tensor(SCALE)}
        state["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    file = models.put(server, "diffusion_models", f"{kind.replace(' ', '_')}_teacher.safetensors", state)
    graph = Graph()
    train(graph, kind.replace(" ", "_"), model=graph("UNETLoader", unet_name=file, **loader)[0], start_steps=0)
    with pytest.raises(PromptFailed, match="reads prompts of width 4096, the text encoder gives"):
        server.run(graph.prompt)
    (written,) = teachers(server, kind.replace(" ", "_"))
    found = load_file(written)
    assert set(found) == set(models.wan())
    assert relative(found[layer], wanted) < 5e-3


def test_its_losses_go_into_cores_plot(server: Server) -> None:
    graph = Graph()
    node = train(graph, "plotted", start_steps=0)
    graph("LossGraphNode", loss=node[1], filename_prefix="loss")
    assert server.files(server.run(graph.prompt))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": " \n\n"}, "'prompts' is empty"),
        ({"name": "../elsewhere"}, "no name of a file"),
        ({"width": 72}, "width is 72 pixels; this model makes multiples of 16"),
        (
            {"width": 8192, "height": 8192, "batch_size": 64, "start_steps": 0},
            "lower batch_size, rank, chunks or the size",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_begun(server: Server, changes: dict[str, Any], said: str) -> None:
    graph = Graph()
    train(graph, str(changes.get("name", "refused")), **{k: v for k, v in changes.items() if k != "name"})
    with pytest.raises(PromptFailed, match=said):
        server.run(graph.prompt)
    assert not (server.base / "output" / "self_forcing_training" / "refused").exists()


def test_a_result_whose_file_is_gone_is_written_again(server: Server) -> None:
    brief: dict[str, Any] = {"start_steps": 0, "steps": 1}
    trained(server, "gone", **brief)
    before = lora(server, "gone")
    file_of(server, "gone").unlink()
    trained(server, "gone", **brief)
    assert all(torch.equal(lora(server, "gone")[name], tensor) for name, tensor in before.items())


def test_another_training_or_file_of_its_name_is_left_alone(server: Server) -> None:
    trained(server, "taken", start_steps=0, steps=1)
    before = lora(server, "taken")
    brief: dict[str, Any] = {"start_steps": 0, "steps": 1}
    for change, said in (("rank", "result, rank"), ("prompts", "prompts"), ("guidance", "guidance")):
        graph = Graph()
        train(graph, "taken", **{**brief, change: RED if change == "prompts" else 8})
        with pytest.raises(PromptFailed, match=said):
            server.run(graph.prompt)
    models.put(server, "loras", "foreign.safetensors", before)
    graph = Graph()
    train(graph, "foreign")
    with pytest.raises(PromptFailed, match="is there already"):
        server.run(graph.prompt)
    found = lora(server, "taken")
    assert all(torch.equal(found[name], tensor) for name, tensor in before.items())
