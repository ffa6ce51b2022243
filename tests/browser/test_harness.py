"""The browser harness itself, on each editor and in both ways of drawing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.comfyui.browser import Editor, Mode
from tools.comfyui.prompt import to_prompt
from tools.comfyui.server import PromptFailed, PromptInterrupted


def node(number: int, kind: str, values: list[Any], **more: Any) -> dict[str, Any]:
    place = {"pos": [50 + 350 * number, 100], "size": [300, 200], "flags": {}, "order": number, "mode": 0}
    slots: dict[str, Any] = {"inputs": [], "outputs": [], "properties": {}}
    return {"id": number, "type": kind, **place, **slots, "widgets_values": values, **more}


def workflow(*nodes: dict[str, Any], links: list[list[Any]] | None = None) -> dict[str, Any]:
    return {"last_node_id": len(nodes), "last_link_id": 9, "nodes": list(nodes), "links": links or [], "version": 0.4}


VIDEO = workflow(
    node(1, "EmptyImage", [64, 64, 8, 255], outputs=[{"name": "IMAGE", "type": "IMAGE", "links": [1]}]),
    node(
        2,
        "CreateVideo",
        [8],
        inputs=[{"name": "images", "type": "IMAGE", "link": 1}],
        outputs=[{"name": "VIDEO", "type": "VIDEO", "links": [2]}],
    ),
    node(3, "SaveVideo", ["harness", "auto", "auto"], inputs=[{"name": "video", "type": "VIDEO", "link": 2}]),
    node(4, "MarkdownNote", ["a note"]),
    links=[[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "VIDEO"]],
)


def test_a_workflow_runs_and_its_video_shows(page: Editor, mode: Mode, tmp_path: Path) -> None:
    assert page.js("() => Boolean(LiteGraph.vueNodesMode)") == (mode == "nodes2")
    page.load_workflow(VIDEO)
    page.set_widget(1, "color", 0x00FF00 if mode == "classic" else 0x0000FF)
    page.wait(page.press_run())
    page.fit_view()
    page.page.locator("video").first.wait_for()
    page.media_ready()
    assert page.screenshot(tmp_path / "canvas.png").stat().st_size > 10_000
    assert page.errors == []


def test_our_prompt_is_the_editors(page: Editor) -> None:
    page.load_workflow(VIDEO)
    assert page.prompt() == to_prompt(VIDEO, page.server.object_info())


PAUSE = "(paused) => { app.canvas.pause_rendering = paused; }"
SCALE = "() => app.canvas.ds.scale"


def test_the_view_fits_nodes_that_the_editor_did_not_draw_yet(page: Editor) -> None:
    page.js(PAUSE, True)  # as a busy machine does for a while
    page.load_workflow(VIDEO)
    page.fit_view()
    page.js(PAUSE, False)
    scale = page.js(SCALE)
    page.fit_view()
    assert page.js(SCALE) == pytest.approx(scale)


LISTEN = """() => {
  harness.begun = new Promise((begin) => app.api.addEventListener("executing", ({ detail }) => detail && begin()));
}"""


@pytest.mark.one_mode
def test_a_failure_and_a_stop_reach_the_caller(page: Editor) -> None:
    page.load_workflow(workflow(node(1, "ProbeWait", [0.0, True])))
    with pytest.raises(PromptFailed, match="as told"):
        page.run()
    page.load_workflow(workflow(node(1, "ProbeWait", [60.0, False])))
    page.js(LISTEN)
    waiting = page.queue()
    page.js("async () => { await harness.begun; }")  # an interrupt before the run begins is forgotten
    page.server.interrupt()
    with pytest.raises(PromptInterrupted):
        page.wait(waiting)


@pytest.mark.one_mode
def test_a_dropped_file_opens(page: Editor) -> None:
    page.drop(json.dumps(VIDEO))
    page.page.wait_for_function("() => app.graph.nodes.length === 4")


@pytest.mark.one_mode
def test_help_of_a_node(page: Editor) -> None:
    page.load_workflow(workflow(node(1, "ProbeNothing", [1])))
    assert "number" in page.node_help(1)
