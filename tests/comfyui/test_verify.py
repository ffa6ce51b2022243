"""Verify Model: a certificate for a MODEL as ComfyUI computes it, with the numbers that come with the pack."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sf_core.verification.cases import cases
from tests.comfyui import models
from tests.comfyui.graphs import Graph, Tiny
from tools.comfyui.checkout import PRIMARY
from tools.comfyui.server import PromptFailed, Server

NAMED = {case.name: case for case in cases()}


def verified(server: Server, name: str, **inputs: Any) -> tuple[dict[str, Any], str]:
    """The certificate of a file that is small, and what the node says."""
    case, file = NAMED[name], f"{name}.safetensors"
    facts = {"sf.num_heads": "2", "sf.text_len": "8", "sf.rollout": json.dumps(case.config.as_dict())}
    models.put(server, "diffusion_models", file, case.weights(), facts)
    server.object_info()
    graph = Graph()
    model = graph("SFLoadModel", model_name=file, weight_dtype="default", preset="from the model")[0]
    values = {"case_only": False, "filename_prefix": "verified/one", **inputs}
    node = graph("SFVerify", model=model, **values).number
    said = server.run(graph.prompt)[node]["sf_text"][0]
    newest = max((server.base / "output" / "verified").glob("one_*.json"))
    return json.loads(newest.read_text()), said


@pytest.mark.parametrize("name", ["Reward Forcing", "SGF+"])
def test_a_model_is_verified_as_comfyui_computes_it(server: Server, name: str) -> None:
    certificate, said = verified(server, name)
    assert said == certificate["line"]
    assert said.startswith("verify passed: ")
    assert certificate["recorded_case"] == name
    assert [check["passed"] for check in certificate["checks"]] == [True] * 5
    assert certificate["machine"]["attention"] == "ComfyUI's"


@pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)
def test_memory_that_runs_out_while_a_model_is_verified_is_free_when_it_is_said(server: Server) -> None:
    graph = Graph()
    model = graph("ProbeOutOfMemory", model=Tiny.of(graph).model, at=30)[0]
    graph("SFVerify", model=model, case_only=False, filename_prefix="verified/never")
    with pytest.raises(
        PromptFailed, match="the memory was not enough to verify the model, and has been freed"
    ) as failure:
        server.run(graph.prompt)
    assert "OutOfMemoryError" in failure.value.exception_type
    graph = Graph()
    number = graph("ProbeFreed").number
    facts = server.run(graph.prompt)[number]["facts"][0]
    assert facts["caches"]
    assert not any(facts["alive"])


@pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)
def test_the_recorded_run_alone_is_played_again_each_time(server: Server) -> None:
    first, _ = verified(server, "LongLive 2", case_only=True)
    assert [check["name"] for check in first["checks"]] == ["recorded case"]
    assert first["passed"]
    verified(server, "LongLive 2", case_only=True)
    assert len(list((server.base / "output" / "verified").glob("one_*.json"))) >= 2
