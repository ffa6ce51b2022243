"""Widgets of Rollout Settings follow its preset."""

from __future__ import annotations

from typing import Any

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
# what the menu and the arrows of the classic canvas call
EDIT_ON_CANVAS = """([id, name, value]) => {
  const node = app.graph.getNodeById(id);
  const event = new PointerEvent("pointerup");
  node.widgets.find((one) => one.name === name).setValue(value, { e: event, node, canvas: app.canvas });
}"""
API_PROMPT = "async (prompt) => { await app.loadApiJson(prompt, 'api'); }"


def add(page: Editor, kind: str, count: int = 1) -> None:
    page.js(ADD, [kind, count])
    page.fit_view()


def values(page: Editor, node_id: int = 1) -> dict[str, Any]:
    page.page.wait_for_timeout(50)  # the widgets follow after the pick
    found: dict[str, Any] = page.js(VALUES, node_id)
    return found


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
        assert values(page) == {"preset": name, **presets[name]}
    assert values(page, 2) == {"preset": "Self Forcing", **presets["Self Forcing"]}
    assert page.errors == []


def test_an_edit_makes_the_preset_custom(page: Editor, mode: Mode) -> None:
    presets = page.js(PRESETS)
    add(page, "SFRolloutSettings")
    pick(page, mode, "LongLive")
    edit_window(page, mode, 9)
    assert values(page) == {"preset": "custom", **presets["LongLive"], "window_frames": 9}
    edit_window(page, mode, 15)
    pick(page, mode, "custom")
    assert values(page) == {"preset": "custom", **presets["LongLive"], "window_frames": 15}
    pick(page, mode, "Rolling Forcing")
    assert values(page) == {"preset": "Rolling Forcing", **presets["Rolling Forcing"]}
    if mode == "nodes2":
        page.page.locator("[data-node-id='1']").get_by_text("Rolling Forcing").first.wait_for()


def test_loading_is_no_edit(page: Editor) -> None:
    presets = page.js(PRESETS)
    add(page, "SFRolloutSettings", 2)
    page.set_widget(1, "preset", "LongLive")
    page.set_widget(2, "shift", 6.0)
    before = [values(page, number) for number in (1, 2)]
    assert [one["preset"] for one in before] == ["LongLive", "custom"]
    page.load_workflow(page.js("() => app.graph.serialize()"))
    assert [values(page, number) for number in (1, 2)] == before
    # a workflow whose values are none of its preset's, as an older pack may have saved it, stays as it is
    saved = page.js("() => app.graph.serialize()")
    saved["nodes"][0]["widgets_values"][2] = 18
    page.load_workflow(saved)
    assert values(page, 1) == {"preset": "LongLive", **presets["LongLive"], "window_frames": 18}


def test_an_api_prompt_loads_as_it_is(page: Editor) -> None:
    presets = page.js(PRESETS)
    longlive = {"preset": "LongLive", **presets["LongLive"]}
    custom = {"preset": "custom", **presets["CausVid"], "shift": 3.0}
    # most callers leave the values at whatever they were, since only the preset counts
    careless = {**presets["Self Forcing"], "preset": "LongLive"}
    inputs = {"1": longlive, "2": custom, "3": careless, "4": dict(sorted(careless.items()))}
    page.js(API_PROMPT, {key: {"class_type": "SFRolloutSettings", "inputs": one} for key, one in inputs.items()})
    assert values(page, 1) == longlive
    assert values(page, 2) == custom
    assert values(page, 3) == longlive
    assert values(page, 4) == longlive
