"""The harness itself, on each real server: what the other tests here take for granted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui import servers
from tools.comfyui import checkout
from tools.comfyui.events import decode
from tools.comfyui.prompt import WorkflowError, to_prompt
from tools.comfyui.server import PACK, PromptFailed, PromptInterrupted, PromptRejected, Server

WAIT = {"1": {"class_type": "ProbeWait", "inputs": {"seconds": 600.0, "fails": False}}}


def frames(count: int, color: int) -> dict[str, Any]:
    image = {"width": 64, "height": 64, "batch_size": count, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "harness"}},
    }


def test_the_server_is_the_version_it_says(server: Server) -> None:
    assert server.get("/system_stats")["system"]["comfyui_version"] == server.checkout.version


def test_comfyui_imports_the_pack(server: Server) -> None:
    assert server.failed_packs() == {}
    assert any(info["python_module"] == f"custom_nodes.{PACK}" for info in server.object_info().values())


def test_a_prompt_runs_and_its_files_are_found(server: Server) -> None:
    with server.events() as events:
        outputs = server.run(frames(3, 255), client_id=events.client_id)
        done = events.wait_for("execution_success")
    files = server.files(outputs)
    assert len(files) == 3
    assert all(path.is_file() and path.is_relative_to(server.base) for path in files)
    assert events.of("execution_start")[0].time <= done.time


def test_a_rejected_prompt_says_why(server: Server) -> None:
    with pytest.raises(PromptRejected, match=r"node 1 \(EmptyImage\): .*width, wide") as error:
        server.submit(frames(1, 0) | {"1": {"class_type": "EmptyImage", "inputs": {"width": "wide"}}})
    assert error.value.node_errors["1"]["class_type"] == "EmptyImage"
    with pytest.raises(PromptRejected, match="NoSuchNode"):
        server.submit({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_a_failing_node_is_named(server: Server) -> None:
    with pytest.raises(PromptFailed) as error:
        server.run({"7": {"class_type": "ProbeWait", "inputs": {"seconds": 0.0, "fails": True}}})
    failed = error.value
    assert (failed.node_id, failed.exception_type) == ("7", "ValueError")
    assert "as told" in failed.exception_message


def test_a_running_prompt_is_stopped_at_once(server: Server) -> None:
    with server.events() as events:
        prompt = server.submit(WAIT, client_id=events.client_id)
        events.wait_for(lambda event: event.kind == "executing" and event.data.get("node") == "1")
        server.interrupt()
        with pytest.raises(PromptInterrupted):
            server.wait(prompt)  # not for as long as the node waits
    assert server.run({"1": {"class_type": "ProbeNothing", "inputs": {"number": 4}}})["1"]["number"] == [4]


WORKFLOW: dict[str, Any] = {
    "nodes": [
        {"id": 1, "type": "EmptyImage", "outputs": [{"type": "IMAGE"}], "widgets_values": [64, 48, 2, 7]},
        {"id": 2, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 1}], "outputs": [{"type": "IMAGE"}]},
        {
            "id": 3,
            "type": "ImageInvert",
            "mode": 4,
            "inputs": [{"name": "image", "type": "IMAGE", "link": 2}],
            "outputs": [{"type": "IMAGE"}],
        },
        {"id": 4, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 3}]},
        {"id": 5, "type": "PreviewImage", "mode": 2, "inputs": [{"name": "images", "type": "IMAGE", "link": 4}]},
        {"id": 6, "type": "KSampler", "widgets_values": [11, "randomize", 20, 8.0, "euler", "simple", 1.0]},
        {"id": 7, "type": "Note", "widgets_values": ["read me"]},
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 3, 0, 4, 0, "IMAGE"], [4, 1, 0, 5, 0, "IMAGE"]],
}


def test_a_saved_workflow_becomes_a_prompt(server: Server) -> None:
    prompt = to_prompt(WORKFLOW, server.object_info())
    assert sorted(prompt) == ["1", "4", "6"]
    assert prompt["1"]["inputs"] == {"width": 64, "height": 48, "batch_size": 2, "color": 7}
    assert prompt["4"]["inputs"] == {"images": ["1", 0]}
    sampler = {"seed": 11, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    assert prompt["6"]["inputs"] == sampler
    with pytest.raises(WorkflowError, match="NoSuchNode"):
        to_prompt({"nodes": [{"id": 1, "type": "NoSuchNode"}], "links": []}, server.object_info())


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import time; print('started', flush=True); time.sleep(600)")
    command = [sys.executable, str(checkout.ROOT / "tools/comfyui/launch.py"), str(tmp_path), "--"]
    environment = {**os.environ, "COMFYUI_ENDS_WITH_STDIN": "1"}
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"started\n"
    server.stdin.close()  # as the system does when the other process is killed
    assert server.wait(120) == 1


def test_no_server_at_all_fails_the_run(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    monkeypatch.setattr(servers, "started", {})
    monkeypatch.setattr(servers, "missing", dict.fromkeys(servers.VERSIONS, "not here"))
    with pytest.raises(pytest.fail.Exception, match="no real ComfyUI at all"):
        servers.get("primary", pytestconfig)


def test_one_missing_server_is_said(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config, server: Server
) -> None:
    monkeypatch.setattr(servers, "VERSIONS", {**servers.VERSIONS, "future": "9.9.9"})
    monkeypatch.setitem(servers.missing, "future", "not here")
    with pytest.raises(pytest.skip.Exception, match=r"real server 9\.9\.9: not run"):
        servers.get("future", pytestconfig)


def test_a_folder_that_is_no_comfyui_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", os.fspath(tmp_path))
    with pytest.raises(checkout.Unavailable, match="no checkout of ComfyUI"):
        checkout.primary()


def test_binary_messages_are_read() -> None:
    meta = json.dumps({"node_id": "3"}).encode()
    with_metadata = (4).to_bytes(4, "big") + len(meta).to_bytes(4, "big") + meta + b"JPEG"
    assert decode(with_metadata) == ("preview", {"node_id": "3"}, b"JPEG")
    assert decode(b"\0\0\0\1\0\0\0\1JPEG") == ("preview", {}, b"JPEG")
    assert decode(b"\0\0\0\3\0\0\0\2" + b"12hello") == ("text", {"node": "12", "text": "hello"}, b"")
