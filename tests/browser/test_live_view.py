"""The live view: frames play on the node while the run goes on, then the video; nothing of it stays behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.comfyui.browser import Editor

WORKFLOW: dict[str, Any] = json.loads((Path(__file__).parents[2] / "workflows/tiny_text_to_video.json").read_text())
PICTURE, VIDEO = "img[src^='data:image/jpeg']", "video[src*='self_forcing']"
# how many different pictures the view has shown so far
COUNT_PICTURES = """() => {
  window.pictures = new Set();
  const look = () => {
    const image = document.querySelector("img[src^='data:image/jpeg']");
    if (image && image.style.display !== "none") window.pictures.add(image.src);
    requestAnimationFrame(look);
  };
  look();
}"""


def number_of(page: Editor, kind: str) -> str:
    return next(number for number, node in page.prompt().items() if node["class_type"] == kind)


def endless(page: Editor, seed: int) -> tuple[int, str]:
    """A run with no end, begun; what `Editor.wait` takes, and its stream's number."""
    stream = number_of(page, "SFStreamVideo")
    page.set_widget(number_of(page, "SFSession"), "seed", seed)
    page.set_widget(stream, "seconds", 0.0)
    return page.press_run(), stream


def test_frames_play_while_the_run_goes_on_and_the_video_stays(page: Editor) -> None:
    """Twice: what was on the node does not keep the next run's frames from being seen."""
    page.load_workflow(WORKFLOW)
    for seed in (101, 102):
        run, stream = endless(page, seed)
        page.js(COUNT_PICTURES)
        page.page.locator(PICTURE).first.wait_for()
        page.page.wait_for_function("() => window.pictures.size >= 10")
        assert not page.page.locator(VIDEO).first.is_visible()
        page.server.post("/self_forcing/steer", {"node_id": stream, "action": "stop"})
        page.wait(run)
        page.page.locator(VIDEO).first.wait_for()
        page.page.wait_for_function("(which) => document.querySelector(which).readyState >= 2", arg=VIDEO)
        assert not page.page.locator(PICTURE).first.is_visible()
    assert page.errors == []


def test_the_view_is_in_no_saved_workflow_and_in_no_prompt(page: Editor) -> None:
    page.load_workflow(WORKFLOW)
    saved = next(node for node in page.js("() => app.graph.serialize()")["nodes"] if node["type"] == "SFStreamVideo")
    opened = next(node for node in WORKFLOW["nodes"] if node["type"] == "SFStreamVideo")
    assert saved["widgets_values"] == opened["widgets_values"]
    stream = page.prompt()[number_of(page, "SFStreamVideo")]
    assert set(stream["inputs"]) == {"session", "vae", "seconds", "fps"}


def test_a_removed_node_takes_its_view_with_it(page: Editor) -> None:
    page.load_workflow(WORKFLOW)
    run, stream = endless(page, 103)
    page.page.locator(PICTURE).first.wait_for()
    page.js("(id) => app.graph.remove(app.graph.getNodeById(id))", stream)
    page.page.locator(PICTURE).first.wait_for(state="detached")
    page.server.post("/self_forcing/steer", {"node_id": stream, "action": "stop"})
    page.wait(run)
    assert page.page.locator(VIDEO).count() == 0
    assert page.errors == []
