"""The workflow *tiny_train*, whole, once: minutes, so it has a worker of its own (`tests/scheduling.py`)."""

from __future__ import annotations

import pytest
import torch

from benchmarks.tiny_world.observe import observe
from benchmarks.tiny_world.scorer import judge, summarize
from tests.comfyui.workflow_checks import decoded, load_workflow
from tools.comfyui.checkout import PRIMARY
from tools.comfyui.prompt import to_prompt
from tools.comfyui.server import Server

LESSON = load_workflow("tiny_train")


@pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)  # shorter ones run on both
def test_a_lora_that_was_trained_on_the_canvas_makes_the_teacher_stream(server: Server) -> None:
    """The prompt is not among those that it learns, and the teacher alone loses the shape."""
    prompt = to_prompt(LESSON, server.object_info())
    texts = {node["class_type"]: node["inputs"] for node in prompt.values()}
    caption = texts["CLIPTextEncode"]["text"]
    assert caption not in texts["SFTrain"]["prompts"]
    outputs = server.run(prompt, timeout=3600)
    saved = [str(node["id"]) for node in LESSON["nodes"] if node["type"] == "SaveVideo"]
    found = [decoded(path) for node in saved for path in server.files({node: outputs[node]})]
    assert [len(video) for video in found] == [81, 81]
    seen = [judge(observe(torch.from_numpy(video) / 255), caption, 0, len(video)) for video in found]
    after, before = (summarize([one]) for one in seen)
    assert after["frames_correct"] > 0.7, after
    assert after["one_object"] > 0.95
    assert before["frames_correct"] < 0.3, before
