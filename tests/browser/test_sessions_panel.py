"""The sessions panel: what there is, brought back into the graph, forked, deleted; nothing of it stays when closed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.comfyui.graphs import BLUE
from tests.comfyui.sessions_api import endless, folder, saved
from tools.comfyui.browser import Editor

WORKFLOW: dict[str, Any] = json.loads((Path(__file__).parents[2] / "workflows/tiny_text_to_video.json").read_text())
OPEN = "() => app.extensionManager.sidebarTab.toggleSidebarTab('self-forcing-sessions')"
BY_TYPE = """() => Object.fromEntries(app.graph.nodes.map((node) => [node.type, {
  file: node.widgets?.find((one) => one.name === "file")?.value,
  values: node.widgets?.find((one) => one.name === "file")?.options.values,
  wired: Object.fromEntries((node.inputs ?? []).filter((one) => one.link != null).map((one) =>
    [one.name, app.graph.getNodeById(app.graph.links.get?.(one.link).origin_id).type])),
}]))"""
one_mode = pytest.mark.parametrize(
    "mode", ["classic"], indirect=True
)  # the panel does not depend on how nodes are drawn
# counts what the page asks the server for
COUNT = """() => {
  window.asked = 0;
  const before = app.api.fetchApi;
  app.api.fetchApi = function (path, ...more) {
    if (path === "/self_forcing/sessions") window.asked++;
    return before.call(this, path, ...more);
  };
}"""


def panel(page: Editor) -> Locator:
    page.js(OPEN)
    found = page.page.locator(".sf-sessions")
    found.wait_for()
    return found


def card(page: Editor, name: str) -> Locator:
    return page.page.locator(".sf-sessions li").filter(has_text=name.removesuffix(".session"))


def button(page: Editor, name: str, label: str) -> Locator:
    return card(page, name).get_by_role("button", name=label)


def picture_beside(page: Editor, name: str) -> None:
    Image.new("RGB", (64, 64), "crimson").save((folder(page.server) / name).with_suffix(".jpg"))


@pytest.mark.one_mode
def test_a_saved_session_is_shown_and_goes_on_in_the_graph(page: Editor) -> None:
    """Its file came after the page was loaded: the new node's list has it all the same, and the run takes it."""
    page.load_workflow(WORKFLOW)
    page.fit_view()  # Nodes 2.0 moves them apart a moment after they are loaded
    name = saved(page.server, "panel/goes on")
    picture_beside(page, name)
    panel(page)
    shown = card(page, name)
    expect(shown).to_contain_text("64 \u00d7 64")
    for fact in (BLUE, "1.3 s", "tiny demo"):
        expect(shown).to_contain_text(fact)
    page.page.wait_for_function(
        "() => document.querySelector('.sf-sessions li img:not([hidden])')?.naturalWidth === 64"
    )
    page.js("() => { for (const node of app.graph.nodes) if (node.type === 'SFStreamVideo') app.graph.remove(node); }")
    button(page, name, "Continue").click()
    page.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'SFStreamVideo')")
    nodes = page.js(BY_TYPE)
    assert nodes["SFLoadSession"]["file"] == name
    assert name in nodes["SFLoadSession"]["values"]
    assert nodes["SFLoadSession"]["wired"]["model"] == "SFLoadTiny"
    assert nodes["SFStreamVideo"]["wired"]["session"] == "SFLoadSession"
    boxes = page.js("() => app.graph.nodes.map((node) => [node.type, ...node.pos, ...node.size])")
    new = [box for box in boxes if box[0] in ("SFLoadSession", "SFStreamVideo")]
    for kind, x, y, width, height in new:
        for other, x2, y2, width2, height2 in boxes:
            assert kind == other or x >= x2 + width2 or x2 >= x + width or y >= y2 + height2 or y2 >= y + height
    for number, node in page.prompt().items():
        if node["class_type"] == "SFStreamVideo":
            page.set_widget(number, "seconds", 0.5)
            if "vae" not in node["inputs"]:
                page.js(
                    """(id) => app.graph.nodes.find((node) => node.type === "SFLoadTiny").connect(
                         2, app.graph.getNodeById(id), 1)""",
                    number,
                )
    page.run()
    assert page.errors == []


def test_only_the_loader_is_added_and_nothing_is_wired_where_there_is_a_choice(page: Editor) -> None:
    name = saved(page.server, "panel/alone")
    panel(page)
    button(page, name, "Load").click()
    page.page.wait_for_function("() => app.graph.nodes.length === 1")
    found = page.js(BY_TYPE)["SFLoadSession"]
    assert (found["file"], found["wired"]) == (name, {})
    assert page.errors == []


@one_mode
@pytest.mark.one_mode
def test_a_live_run_appears_grows_and_is_forked(page: Editor) -> None:
    panel(page)
    with endless(page.server):
        page.page.get_by_role("button", name="Refresh", exact=True).last.click()
        live = page.page.locator(".sf-sessions li").filter(has=page.page.locator(".sf-live"))
        expect(live).to_contain_text(BLUE)
        # by the editor's own requests, which name the user: an <img> does not, and is refused with --multi-user
        with page.page.expect_request("**/self_forcing/frames/**") as asked:
            expect(live.locator("img[src^='blob:']")).to_be_visible()
        assert "comfy-user" in asked.value.headers
        page.page.wait_for_function(
            "() => document.querySelector('.sf-sessions li img[src^=\"blob:\"]').naturalWidth === 64"
        )
        before = live.inner_text()
        page.page.wait_for_function(
            "(before) => document.querySelector('.sf-sessions li').innerText !== before", arg=before
        )
        live.get_by_role("button", name="Fork here").click()
        page.page.wait_for_function("() => app.graph.nodes.length === 1")
        name = page.js(BY_TYPE)["SFLoadSession"]["file"]
        assert name.startswith(f"{BLUE} at chunk ")
        assert (folder(page.server) / name).is_file()
        card(page, name).wait_for()
    live.wait_for(state="detached")
    expect(page.page.locator(".sf-sessions li").filter(has_text="interrupted").first).to_be_visible()
    assert page.errors == []


@one_mode
@pytest.mark.one_mode
def test_deleting_asks_first(page: Editor) -> None:
    name = saved(page.server, "panel/doomed")
    panel(page)
    button(page, name, "Delete").click()
    dialog = page.page.get_by_role("dialog").last
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="detached")
    assert (folder(page.server) / name).is_file()
    button(page, name, "Delete").click()
    page.page.get_by_role("dialog").last.get_by_role("button", name="Confirm").click()
    card(page, name).wait_for(state="detached")
    assert not (folder(page.server) / name).exists()
    assert page.errors == []


@one_mode
def test_keyboard_alone_will_do(page: Editor) -> None:
    name = saved(page.server, "panel/keys")
    panel(page)
    card(page, name).wait_for()
    page.page.get_by_role("button", name="Refresh", exact=True).last.focus()
    while page.js("() => document.activeElement.ariaLabel") != f"Load: {name.removesuffix('.session')}":
        page.page.keyboard.press("Tab")
        assert page.js("() => !!document.activeElement.closest('.sf-sessions')")
    page.page.keyboard.press("Enter")
    page.page.wait_for_function("() => app.graph.nodes.length === 1")


@one_mode
@pytest.mark.one_mode
def test_nothing_stays_when_the_tab_is_closed(own_page: Editor) -> None:
    own_page.js(COUNT)
    panel(own_page)
    with endless(own_page.server):
        own_page.page.get_by_role("button", name="Refresh", exact=True).last.click()
        own_page.page.wait_for_function("() => window.asked >= 4")
        own_page.js(OPEN)
        own_page.page.locator(".sf-sessions").wait_for(state="detached")
        asked = own_page.js("() => window.asked")
        time.sleep(4.5)
        assert own_page.js("() => window.asked") == asked
    own_page.page.wait_for_timeout(500)  # the end of the run is news only where somebody looks
    assert own_page.js("() => window.asked") == asked
    panel(own_page)
    assert own_page.js("() => document.querySelectorAll('.sf-sessions').length") == 1
    assert own_page.errors == []


@one_mode
@pytest.mark.one_mode
def test_an_empty_panel_says_how_to_get_a_session(own_page: Editor) -> None:
    own_page.page.route("**/self_forcing/sessions", lambda route: route.fulfill(json={"sessions": []}))
    expect(panel(own_page).get_by_role("status")).to_contain_text("Save Session")
    own_page.page.unroute("**/self_forcing/sessions")
    own_page.page.route("**/self_forcing/sessions", lambda route: route.fulfill(status=409, json={"error": "no disk"}))
    own_page.page.get_by_role("button", name="Refresh", exact=True).last.click()
    expect(own_page.page.locator(".sf-sessions").get_by_role("status")).to_contain_text("no disk")


@one_mode
@pytest.mark.one_mode
def test_a_run_is_found_from_another_tab_stopped_kept_and_renamed(own_page: Editor) -> None:
    """All from its card; the node goes on from it in the same graph, and undo takes that back in one step."""
    page = own_page
    workflow = json.loads((Path(__file__).parents[2] / "workflows/tiny_live.json").read_text())
    page.load_workflow(workflow, "found again")
    node = page.js("() => app.graph.nodes.find((node) => node.type === 'SFStreamVideo').id")
    panel(page)
    page.queue()
    live = page.page.locator(".sf-sessions li").filter(has=page.page.locator(".sf-live"))
    expect(live).to_contain_text("tiny demo \u00b7 found again")
    page.js("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.page.wait_for_function("() => app.graph.nodes.length === 0")
    live.get_by_role("button", name="Show node").click()
    page.page.wait_for_function("(id) => app.canvas.selected_nodes[id]?.type === 'SFStreamVideo'", arg=str(node))
    live.get_by_role("button", name="Stop").click()
    mine = page.page.locator(".sf-sessions li").filter(has_text="found again")  # others have kept theirs, too
    ended = mine.filter(has=page.page.locator(".sf-ended"))
    ended.get_by_role("button", name="Keep").click()
    kept = mine.filter(has=page.page.locator(".sf-saved"))
    kept.get_by_role("button", name="Rename").click()
    page.page.get_by_role("dialog").last.get_by_role("textbox").fill("my circle")
    page.page.get_by_role("dialog").last.get_by_role("textbox").press("Enter")
    expect(kept.first).to_contain_text("my circle")
    assert (folder(page.server) / "my circle.session").is_file()

    session_of = "(id) => app.graph.getNodeById(app.graph.getNodeById(id).getInputLink(0).origin_id).type"
    page.js(
        """async ([id, session]) => {
          const { continueRun } = await import("/extensions/comfyui-self-forcing/sessions/continue.js");
          continueRun(app.graph.getNodeById(id), session);
        }""",
        [node, "my circle.session"],
    )
    assert page.js(session_of, node) == "SFLoadSession"
    expect(live).to_contain_text("a red circle")
    page.js("() => app.extensionManager.command.execute('Comfy.Undo')")
    page.page.wait_for_function("() => !app.graph.nodes.some((node) => node.type === 'SFLoadSession')", timeout=30_000)
    assert page.js(session_of, node) == "SFSession"
    live.get_by_role("button", name="Stop").click()
    page.page.wait_for_function("() => !document.querySelector('.sf-sessions .sf-live')")
    assert page.errors == []
