"""Workflows, graphs, sessions and videos of commit 20d3907 still work on each real server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from sf_core.files.video import read_record
from tests.comfyui.graphs import Graph, Tiny, facts, forget_all, latents, probe
from tests.comfyui.workflow_checks import FOLDERS, check_choices, decoded
from tests.helpers import relative
from tests.waiting import wait_until
from tools.comfyui.prompt import ONLY_IN_THE_EDITOR, to_prompt
from tools.comfyui.server import Prompt, PromptInterrupted, PromptRejected, Server

OLD = Path(__file__).parents[1] / "written_by_20d3907" / "comfyui"
GRAPHS: dict[str, Prompt] = json.loads((OLD / "graphs.json").read_text())  # as 20d3907 sent them to the server

every = pytest.mark.parametrize("name", sorted(GRAPHS))


@cache
def workflow(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((OLD / "workflows" / f"{name}.json").read_text())
    return content


def embedded(name: str, key: str) -> dict[str, Any]:
    """What a node wrote into a video: ``workflow``, ``prompt`` (the graph) or ``self_forcing`` (the pack's record)."""
    found: dict[str, Any] = read_record(OLD / name)[key]
    return found


@pytest.fixture(scope="module")
def info(server: Server) -> dict[str, Any]:
    return server.object_info()


@pytest.fixture
def busy(server: Server) -> Iterator[None]:
    """The server runs a waiting node meanwhile, so that it only accepts or refuses what it is sent."""
    waiting = server.submit({"1": {"class_type": "ProbeWait", "inputs": {"seconds": 300.0, "fails": False}}})
    wait_until(lambda: waiting in [entry[1] for entry in server.get("/queue")["queue_running"]], "the node waits")
    yield
    server.post("/queue", {"clear": True})
    server.interrupt()
    with pytest.raises(PromptInterrupted):
        server.wait(waiting)


def test_all_old_workflows_are_there() -> None:
    assert len(GRAPHS) == 11
    assert sorted(path.stem for path in (OLD / "workflows").iterdir()) == sorted(GRAPHS)


@every
def test_an_old_workflow_means_what_it_meant(name: str, info: dict[str, Any]) -> None:
    """The editor saves values by their place, so that a widget put before others would give each a wrong one.

    The nodes of ComfyUI itself differ between its versions; only those of the pack are compared.
    """
    graph = to_prompt(workflow(name), info)
    assert graph.keys() == GRAPHS[name].keys()
    for number, old in GRAPHS[name].items():
        new = graph[number]
        assert new["class_type"] == old["class_type"]
        if old["class_type"].startswith("SF"):
            assert {key: new["inputs"].get(key) for key in old["inputs"]} == old["inputs"], old["class_type"]


@every
def test_the_outputs_of_an_old_workflow_are_where_they_were(name: str, info: dict[str, Any]) -> None:
    """Links name outputs by their place."""
    for node in workflow(name)["nodes"]:
        if node["type"] in ONLY_IN_THE_EDITOR:
            continue
        kinds = info[node["type"]]["output"]
        saved = [slot["type"] for slot in node["outputs"]]
        assert kinds[: len(saved)] == saved, node["type"]


@pytest.mark.usefixtures("busy")
def test_the_server_accepts_old_workflows_and_old_graphs(server: Server, info: dict[str, Any]) -> None:
    """If a workflow loads published models, which are not here, their files are all that the server lacks."""
    for name, old in GRAPHS.items():
        for graph in (to_prompt(workflow(name), info), old):
            check_choices(graph, info)
            if name.startswith("tiny_"):
                assert server.submit(graph), name
                continue
            with pytest.raises(PromptRejected) as rejected:
                server.submit(graph)
            assert rejected.value.node_errors, name
            for number, failed in rejected.value.node_errors.items():
                assert graph[number]["class_type"] in FOLDERS, name
                assert {error["type"] for error in failed["errors"]} == {"value_not_in_list"}, name


@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [("save_video.mp4", "SaveVideo", "workflow"), ("stream_video.mp4", "SFStreamVideo", "prompt")],
)
def test_what_an_old_video_holds_makes_the_same_video(
    name: str, kind: str, key: str, server: Server, info: dict[str, Any]
) -> None:
    """The workflow, which the editor loads when the video is dropped on it, and the graph; with a prompt timeline."""
    forget_all(server)
    content = embedded(name, key)
    graph = to_prompt(content, info) if key == "workflow" else content
    for node in graph.values():
        node.pop("is_changed", None)  # ComfyUI's own mark
    outputs = server.run(graph)
    number = next(number for number, node in graph.items() if node["class_type"] == kind)
    (path,) = server.files({number: outputs[number]})
    old, new = decoded(OLD / name).astype(int), decoded(path).astype(int)
    assert old.shape == new.shape
    # the demo's decoder has sharper edges since, and passes from one background to the next in other frames
    apart = np.abs(old - new).mean(axis=(1, 2, 3))
    assert np.median(apart) < 3, "the same frames, up to that and the rounding of another codec version"
    assert np.median(np.abs(old - new[::-1]).mean(axis=(1, 2, 3))) > 20, "and another order of them is told apart"
    record = embedded(name, "self_forcing")
    record.pop("session")  # a digest of the latents, to the last bit
    assert {key: read_record(path)["self_forcing"].get(key) for key in record} == record


def test_load_session_continues_a_session_of_an_old_save_session(server: Server) -> None:
    target = server.base / "output" / "sessions" / "old" / "written by 20d3907.session"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(OLD / "save_session.session", target)
    listed = {entry["name"]: entry for entry in server.get("/self_forcing/sessions")["sessions"]}
    file = str(target.relative_to(target.parents[1]))
    assert (listed[file]["chunks"], listed[file]["frames"], listed[file]["width"]) == (3, 9, 64)
    graph = Graph()
    tiny = Tiny.of(graph)
    loaded = graph("SFLoadSession", model=tiny.model, file=file, allow_other_model=False)[0]
    number = probe(graph, tiny.sampled(loaded, 1))
    outputs = server.run(graph.prompt)
    assert facts(outputs, number)["chunks"] == 4
    found = latents(outputs, number)
    old = load_file(OLD / "save_session.session")["latents"].movedim(0, 2)
    assert relative(found[:, :, :9], old) == 0
    assert relative(found[:, :, 9:], load_file(OLD / "save_session.next_chunk.safetensors")["next"]) < 1e-5
