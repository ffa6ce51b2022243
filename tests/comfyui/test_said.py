"""What nodes say, in their results and as progress text; and values that contradict each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.graphs import Graph, Out, Tiny
from tools.comfyui.checkout import ROOT
from tools.comfyui.server import PromptFailed, Server

INPUTS = ROOT / "workflows" / "input"


def described(server: Server, preset: str, **changes: Any) -> tuple[str, str]:
    """Session Info's text of a session with a preset and other values beside it, and what Rollout Settings says."""
    inputs = server.get("/object_info/SFRolloutSettings")["SFRolloutSettings"]["input"]["required"]
    values = {name: options["default"] for name, (_, options) in inputs.items() if name != "preset"}
    graph = Graph()
    tiny = Tiny.of(graph)
    numbers = {name: value[0] for name, value in changes.items() if isinstance(value, list)}
    wired = {name: graph("PrimitiveInt", value=value)[0] for name, value in numbers.items()}
    settings = graph("SFRolloutSettings", **{**values, **changes, **wired, "preset": preset})
    info = graph("SFSessionInfo", session=tiny.session(settings=settings[0])).number
    outputs = server.run(graph.prompt)
    return outputs[info]["sf_text"][0], outputs[settings.number]["sf_text"][0]


def test_a_value_that_is_set_beside_a_preset_is_used_and_said(server: Server) -> None:
    text, note = described(server, "Self Forcing", chunk_frames=1)  # as a promoted widget sends it
    assert "chunk_frames=1, window_frames=21" in text
    assert note.startswith("Self Forcing: chunk_frames is 1 in place of 3, the preset's")


def test_a_value_that_is_wired_beside_a_preset_is_used_and_said(server: Server) -> None:
    text, note = described(server, "LongLive", window_frames=[21])  # the default, but somebody wired it
    assert "window_frames=21, sink_frames=3" in text
    assert "window_frames is 21 in place of 12, the preset's" in note


def test_defaults_beside_a_preset_are_not_used_which_is_said(server: Server) -> None:
    text, note = described(server, "LongLive")
    assert "window_frames=12, sink_frames=3" in text
    assert "window_frames is 12, the preset's, and not 21: choose 'custom' to set it" in note
    assert "the preset's" not in described(server, "Self Forcing")[1]


def test_a_value_beside_a_preset_that_is_not_possible_is_refused(server: Server) -> None:
    with pytest.raises(PromptFailed, match="window"):
        described(server, "Self Forcing", window_frames=2)


def test_nodes_speak_the_language_of_the_page_and_their_outputs_english(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(), vae=tiny.vae, seconds=0.5, fps=16.0)
    info = graph("SFSessionInfo", session=stream[1])
    with server.events("of a page") as events:
        server.post("/self_forcing/attach", {"client_id": "of a page", "language": "zh-CN"})
        outputs = server.run(graph.prompt, client_id="of a page")
        events.wait_for_end()
        texts = [event.data["text"] for event in events.of("text") if event.data["node"] == stream.number]
    assert re.fullmatch(r"你的 .+放得下.缓存 .+", texts[0])
    assert re.fullmatch(r"块 1/1 · .+ 帧/秒 · 缓存 .+", texts[-1])
    assert re.match(r"长度.3 个潜空间帧.已采样 1 块.给定 0 帧\n已解码", outputs[info.number]["sf_text"][0])
    texts = outputs[info.number]["sf_text_in"][0]  # a kept result may be sent to a page in another language
    assert texts["zh"] == outputs[info.number]["sf_text"][0]
    assert texts["en"].startswith("length: 3 latent frames, 1 chunks sampled, 0 frames given\n")
    assert outputs[info.number]["text"][0].startswith("length: 3 latent frames, 1 chunks sampled, 0 frames given\n")


def test_what_a_file_holds_is_said_in_the_language_that_was_asked_for(server: Server) -> None:
    asked = {"name": "none.safetensors", "preset": "from the model"}
    assert server.post("/self_forcing/model", asked)["text"].startswith("There is no file 'none.safetensors'")
    beginnings = {"zh": "models/diffusion_models 中没有文件", "../zh": "There is no file", "fr": "There is no file"}
    for language, beginning in beginnings.items():
        answer = server.post("/self_forcing/model", {**asked, "language": language})
        assert answer["text"].startswith(beginning)


def saved(server: Server, prefix: str, **size: int) -> tuple[Path, list[str]]:
    """The file that Save Session writes, and what it says meanwhile."""
    graph = Graph()
    tiny = Tiny.of(graph)
    session = Out(graph("SFSession", model=tiny.model, positive=tiny.text("a red circle"), seed=0, **size).number)
    node = graph("SFSaveSession", session=session, filename_prefix=prefix)
    with server.events("said") as events:
        outputs = server.run(graph.prompt, client_id="said")
        events.wait_for_end()
        texts = [event.data["text"] for event in events.of("text") if event.data["node"] == node.number]
    name = outputs[node.number]["sf_text"][0].split(": ")[0]
    (path,) = (server.base / "output").rglob(name)
    return path, texts


def test_the_name_of_a_saved_session_has_its_size(server: Server) -> None:
    path, _ = saved(server, "sized/%width%x%height%", width=96, height=64)
    assert path.parent.name == "sized"
    assert path.name.startswith("96x64_0")


def test_names_in_progress_text_are_no_html(server: Server) -> None:
    """Editors show such text as HTML, and a file may come from anybody."""
    path, (text,) = saved(server, "named/<img src=x>&", width=64, height=64)
    assert path.name.startswith("<img src=x>&_0")
    assert text.startswith("&lt;img src=x&gt;&amp;_0")


def test_what_the_templates_load_is_in_the_input_folder(server: Server) -> None:
    for path in INPUTS.iterdir():
        assert (server.base / "input" / path.name).read_bytes() == path.read_bytes()


def test_settings_of_the_cache_go_with_a_preset_and_are_seen_in_its_memory(server: Server) -> None:
    text, note = described(server, "LongLive", kv_dtype="int8", kv_offload=True)
    assert "kv_" not in note
    assert "window_frames=12, sink_frames=3" in text
    assert "kv_dtype='int8', kv_offload=True" in text
    assert "(int8) at window 12" in text
