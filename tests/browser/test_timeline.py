"""The timeline of Prompt Timeline: drag, double-click, keys and undo, all of them edits of the text beside it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tools.comfyui.browser import Editor

ROWS = "0: a red circle moving left\n2: a blue square moving up\n4 cut: a green triangle"
ADD = """(rows) => {
  const node = LiteGraph.createNode("SFPromptTimeline");
  node.pos = [200, 200];
  app.graph.add(node);
  node.setSize([640, 340]);
  const widget = node.widgets.find((one) => one.name === "rows");
  widget.value = rows;
  widget.callback?.(rows, app.canvas, node);
  return node.id;
}"""
TEXT = "() => app.graph.nodes[0].widgets.find((one) => one.name === 'rows').value"


def timeline(page: Editor) -> Locator:
    page.js(ADD, ROWS)
    page.load_workflow(page.workflow())  # what undo goes back to
    page.fit_view()
    page.page.locator(".sf-timeline-block").nth(2).wait_for()
    return page.page.locator(".sf-timeline")


def text_is(page: Editor, rows: str) -> None:
    page.page.wait_for_function(f"(rows) => ({TEXT})() === rows", arg=rows)


def box(part: Locator) -> dict[str, float]:
    found: Any = part.bounding_box()
    return found


def test_a_row_is_dragged_to_another_second_and_undo_brings_it_back(page: Editor) -> None:
    timeline(page)
    handles = page.page.locator(".sf-timeline-handle")
    start, other = box(handles.nth(1)), box(handles.nth(2))
    x, y = start["x"] + start["width"] / 2, start["y"] + start["height"] / 2
    second = (other["x"] - start["x"]) / 2  # pixels
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    for step in range(1, 11):
        page.page.mouse.move(x + second * step / 10, y)
    page.page.mouse.up()
    moved = ROWS.replace("2: a blue", "3: a blue")
    text_is(page, moved)
    page.page.keyboard.press("Control+z")
    text_is(page, ROWS)
    expect(page.page.locator(".sf-timeline-block")).to_have_count(3)
    page.page.keyboard.press("Control+y")
    text_is(page, moved)
    assert page.errors == []


def test_a_double_click_edits_a_prompt_in_place(page: Editor) -> None:
    timeline(page)
    page.page.locator(".sf-timeline-block").nth(1).dblclick(position={"x": 40, "y": 20})
    field = page.page.locator(".sf-timeline-edit")
    field.fill("a yellow square")
    field.press("Enter")
    text_is(page, ROWS.replace("a blue square moving up", "a yellow square"))
    page.page.locator(".sf-timeline-block").nth(1).dblclick(position={"x": 40, "y": 20})
    page.page.locator(".sf-timeline-edit").fill("never kept")
    page.page.locator(".sf-timeline-edit").press("Escape")
    text_is(page, ROWS.replace("a blue square moving up", "a yellow square"))
    assert page.errors == []


def test_it_is_used_by_keys_alone(page: Editor) -> None:
    timeline(page)
    blocks = page.page.locator(".sf-timeline-block")
    blocks.nth(1).focus()
    page.page.keyboard.press("ArrowRight")
    page.page.wait_for_function(f"(rows) => ({TEXT})() !== rows", arg=ROWS)
    page.page.keyboard.press("ArrowLeft")
    text_is(page, ROWS)
    page.page.keyboard.press("Delete")
    text_is(page, "0: a red circle moving left\n4 cut: a green triangle")
    page.page.keyboard.press("Enter")
    page.page.locator(".sf-timeline-edit").wait_for()


@pytest.mark.one_mode
def test_what_is_typed_in_the_text_is_drawn_and_what_is_wrong_is_said(page: Editor) -> None:
    found = timeline(page)
    page.set_widget(1, "rows", "0: a red circle\n3 blend 2: a blue circle")
    expect(page.page.locator(".sf-timeline-block")).to_have_count(2)
    page.set_widget(1, "rows", "0: a red circle\nno time here")
    expect(found.get_by_role("status")).to_contain_text("2")
    assert page.js("() => app.graph.serialize().nodes[0].widgets_values[0]") == "0: a red circle\nno time here"
    assert page.errors == []
