"""The templates in the real editor: each opens, is drawn in order, and sends what the server's tests validate."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tools.comfyui.browser import Editor, Mode
from tools.comfyui.checkout import ROOT
from tools.comfyui.prompt import ONLY_IN_THE_EDITOR, to_prompt

FOLDER = ROOT / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
UNKNOWN = "() => app.graph.nodes.filter((node) => !LiteGraph.registered_node_types[node.type]).map((node) => node.type)"
# [name, x, y, width, height] of every node, as it is drawn, its title included
BOXES = """() => app.graph.nodes.map((node) => {
  const [x, y, width, height] = node.boundingRect;
  const element = document.querySelector(`[data-node-id='${node.id}']`);
  return [node.title, x, y, width, element ? element.getBoundingClientRect().height / app.canvas.ds.scale : height];
})"""
TEXT_HEIGHT = "() => app.canvas.ds.scale * LiteGraph.NODE_TEXT_SIZE"
READABLE = 8  # pixels; with a new user's settings an editor draws no text of nodes that is smaller
# pixels from the bottom of the note's last line to the bottom of the note
ROOM = """() => {
  const box = document.querySelector(".comfy-markdown, .comfy-markdown-content");
  const lines = [...box.querySelectorAll("p, td")].filter((line) => line.innerText.trim());
  return box.getBoundingClientRect().bottom - Math.max(...lines.map((line) => line.getBoundingClientRect().bottom));
}"""
ASKED_FOR_SIZE = "Error fetching file size"  # of a model, which the editor asks the model's host about


def workflow(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def sent(page: Editor, info: dict[str, Any]) -> dict[str, Any]:
    """What Run would send, without what only the editor has: the preview of Load Video, the versions of packs."""
    prompt = page.prompt()
    for node in prompt.values():
        node["_meta"] = {"title": node["_meta"]["title"]}
        known = set(itertools.chain(*info[node["class_type"]]["input"].values()))
        node["inputs"] = {name: value for name, value in node["inputs"].items() if name.split(".")[0] in known}
    return prompt


def overlaps(boxes: list[list[Any]]) -> list[tuple[str, str]]:
    found = []
    for (one, x, y, width, height), (other, left, top, wide, high) in itertools.combinations(boxes, 2):
        if x < left + wide and left < x + width and y < top + high and top < y + height:
            found.append((one, other))
    return found


def each_opens(page: Editor, enlarged: bool = False) -> None:
    """One page for all: opening a page takes longer than opening a template."""
    info = page.server.object_info()
    for name in NAMES:
        page.load_workflow(workflow(name), name)
        page.still()
        page.dismiss()  # that models are missing
        assert page.js(TEXT_HEIGHT) >= READABLE, f"the view that {name} opens with"
        page.fit_view()
        assert enlarged or page.js(TEXT_HEIGHT) >= READABLE, f"{name}, fitted into the view"
        assert set(page.js(UNKNOWN)) <= ONLY_IN_THE_EDITOR, name
        assert sent(page, info) == to_prompt(workflow(name), info), name
        assert page.js(ROOM) >= 0, f"the note of {name} is cut off"
        assert overlaps(page.js(BOXES)) == [], name
    assert [error for error in page.errors if ASKED_FOR_SIZE not in error] == []


def test_each_template_opens_readable_and_nothing_overlaps(page: Editor, mode: Mode) -> None:
    # the oldest editor enlarges all nodes by a fifth for its Nodes 2.0
    each_opens(page, enlarged=mode == "nodes2" and page.server.checkout.version.startswith("0.3."))


def test_each_template_opens_so_in_the_newest_editor(newest_page: Editor) -> None:
    each_opens(newest_page)


@pytest.mark.one_mode
def test_the_browser_of_templates_opens_one_and_its_missing_models_are_named(page: Editor) -> None:
    assert page.open_templates() == NAMES
    page.page.get_by_role("dialog").get_by_text("text_to_video", exact=True).first.click()
    loaders = [node for node in workflow("text_to_video")["nodes"] if "models" in node["properties"]]
    page.page.wait_for_function("(n) => app.graph.nodes.length === n", arg=len(workflow("text_to_video")["nodes"]))
    details = page.page.get_by_role("button", name="View details")
    missing = page.page.get_by_text("Missing Models").or_(details)
    missing.first.wait_for()
    if details.is_visible():
        details.click()
    for node in loaders:
        page.page.get_by_text(node["widgets_values"][0], exact=False).first.wait_for()
