"""Widgets of Rollout Settings follow its preset."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import expect

from tests.comfyui import models
from tools.comfyui.browser import Editor, Mode

PRESETS = "() => LiteGraph.registered_node_types.SFRolloutSettings.nodeData.input.required.preset[1].sf_presets"
ADD = """([kind, count]) => {
  for (let n = 0; n < count; n++) {
    const node = LiteGraph.createNode(kind);
    node.pos = [100 + 400 * n, 100];
    app.graph.add(node);
  }
}"""
VALUES = """(id) => {
  const inputs = app.graph.getNodeById(id).widgets.filter((one) => one.options?.serialize !== false);
  return Object.fromEntries(inputs.map((one) => [one.name, one.value]));
}"""
SAME = """Object.keys(found).length === Object.keys(expected).length
  && Object.entries(expected).every(([name, value]) => found[name] === value)"""
# what the menu and the arrows of the classic canvas call
EDIT_ON_CANVAS = """([id, name, value]) => {
  const node = app.graph.getNodeById(id);
  const event = new PointerEvent("pointerup");
  node.widgets.find((one) => one.name === name).setValue(value, { e: event, node, canvas: app.canvas });
}"""
# what menus call
CHOOSE = """([id, name, value]) => {
  const widget = app.graph.getNodeById(id).widgets.find((one) => one.name === name);
  widget.value = value;
  widget.callback?.(value);
}"""
HEIGHT = "() => app.graph.nodes[0].size[1]"
API_PROMPT = "async (prompt) => { await app.loadApiJson(prompt, 'api'); }"


def add(page: Editor, kind: str, count: int = 1) -> None:
    page.js(ADD, [kind, count])
    page.fit_view()


def values_are(page: Editor, expected: dict[str, Any], node_id: int = 1) -> None:
    """Wait for them: the widgets follow after the pick. No preset sets the cache's format or the fit."""
    expected = {"kv_dtype": "as the model", "kv_offload": False, "fit": "off", **expected}
    same = f"([id, expected]) => {{ const found = ({VALUES})(id); return {SAME}; }}"
    try:
        page.page.wait_for_function(same, arg=[node_id, expected])
    except PlaywrightTimeout:
        assert page.js(VALUES, node_id) == expected


def pick(page: Editor, mode: Mode, preset: str) -> None:
    if mode == "classic":
        page.js(EDIT_ON_CANVAS, [1, "preset", preset])
        return
    node = page.page.locator("[data-node-id='1']")
    node.get_by_label("preset", exact=True).first.click()
    page.page.get_by_role("option", name=preset, exact=True).click()
    page.page.get_by_role("option").first.wait_for(state="hidden")


def edit_window(page: Editor, mode: Mode, value: int) -> None:
    if mode == "classic":
        page.js(EDIT_ON_CANVAS, [1, "window_frames", value])
        return
    box = page.page.locator("[data-node-id='1'] input[role=spinbutton][aria-valuemax='4096']")
    box.click(force=True)  # newer editors lay something over it that one can drag
    box.press("Control+A")
    box.press_sequentially(str(value))
    box.press("Enter")
    box.blur()


def test_the_values_follow_the_preset(page: Editor, mode: Mode) -> None:
    presets = page.js(PRESETS)
    add(page, "SFRolloutSettings", 2)
    for name in ("LongLive", "Rolling Forcing", "CausVid", "Self Forcing"):
        pick(page, mode, name)
        values_are(page, {"preset": name, **presets[name]})
    values_are(page, {"preset": "Self Forcing", **presets["Self Forcing"]}, 2)
    assert page.errors == []


def test_an_edit_makes_the_preset_custom(page: Editor, mode: Mode) -> None:
    presets = page.js(PRESETS)
    add(page, "SFRolloutSettings")
    pick(page, mode, "LongLive")
    edit_window(page, mode, 9)
    values_are(page, {"preset": "custom", **presets["LongLive"], "window_frames": 9})
    edit_window(page, mode, 15)
    pick(page, mode, "custom")
    values_are(page, {"preset": "custom", **presets["LongLive"], "window_frames": 15})
    pick(page, mode, "Rolling Forcing")
    values_are(page, {"preset": "Rolling Forcing", **presets["Rolling Forcing"]})
    if mode == "nodes2":
        page.page.locator("[data-node-id='1']").get_by_text("Rolling Forcing").first.wait_for()


def test_loading_is_no_edit(page: Editor) -> None:
    presets = page.js(PRESETS)
    add(page, "SFRolloutSettings", 2)
    page.set_widget(1, "preset", "LongLive")
    page.set_widget(2, "shift", 6.0)
    before = [
        {"preset": "LongLive", **presets["LongLive"]},
        {"preset": "custom", **presets["Self Forcing"], "shift": 6.0},
    ]
    for number in (1, 2):
        values_are(page, before[number - 1], number)
    page.load_workflow(page.workflow())
    for number in (1, 2):
        values_are(page, before[number - 1], number)
    # a workflow whose values are none of its preset's, as an older pack may have saved it, stays as it is
    saved = page.workflow()
    saved["nodes"][0]["widgets_values"][2] = 18
    page.load_workflow(saved)
    values_are(page, {"preset": "LongLive", **presets["LongLive"], "window_frames": 18}, 1)


@pytest.mark.one_mode
def test_an_api_prompt_loads_as_it_is(page: Editor) -> None:
    presets = page.js(PRESETS)
    longlive = {"preset": "LongLive", **presets["LongLive"]}
    custom = {"preset": "custom", **presets["CausVid"], "shift": 3.0}
    # most callers leave the values at their defaults, which say nothing
    careless = {**presets["Self Forcing"], "preset": "LongLive"}
    another = {**careless, "window_frames": 9}
    inputs = {"1": longlive, "2": custom, "3": careless, "4": dict(sorted(careless.items()))}
    inputs |= {"5": another, "6": dict(sorted(another.items()))}
    page.js(API_PROMPT, {key: {"class_type": "SFRolloutSettings", "inputs": one} for key, one in inputs.items()})
    values_are(page, longlive, 1)
    values_are(page, custom, 2)
    values_are(page, longlive, 3)
    values_are(page, longlive, 4)
    values_are(page, {**longlive, "window_frames": 9}, 5)
    values_are(page, {**longlive, "window_frames": 9}, 6)


def test_the_load_node_says_which_model_a_file_is_before_any_run(page: Editor) -> None:
    for name in ("rewardforcing.pt", "causal_forcing.pt"):
        models.put(
            page.server, "diffusion_models", name, {f"model.{key}": value for key, value in models.wan().items()}
        )
    page.reload()
    page.js("() => app.graph.clear()")
    add(page, "SFLoadModel")
    words = page.page.locator(".sf-words")
    page.js(CHOOSE, [1, "model_name", "rewardforcing.pt"])
    expect(words).to_contain_text("Reward Forcing: by the name of the file")
    expect(words).to_contain_text("window_frames=9, sink_frames=3")
    page.still()
    height = page.js(HEIGHT)
    page.js(CHOOSE, [1, "model_name", "causal_forcing.pt"])
    expect(words).to_contain_text("Choose the preset: ")
    page.page.wait_for_function(f"(height) => ({HEIGHT})() > height", arg=height)  # a longer text
    page.js(CHOOSE, [1, "model_name", "rewardforcing.pt"])
    page.page.wait_for_function(f"(height) => ({HEIGHT})() === height", arg=height)
    page.js(CHOOSE, [1, "model_name", "causal_forcing.pt"])
    page.js(CHOOSE, [1, "preset", "Causal Forcing, frame-wise"])
    expect(words).to_contain_text("Causal Forcing, frame-wise: the preset that was chosen")
    page.load_workflow(page.workflow())  # nothing was run, and the text is there again
    expect(words).to_contain_text("Causal Forcing, frame-wise: the preset that was chosen")
    assert page.errors == []
