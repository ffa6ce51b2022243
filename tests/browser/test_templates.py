"""The templates in the real editor: each opens, is drawn in order, and sends what the server's tests validate."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browser.conftest import pictured
from tests.comfyui import servers
from tools.comfyui.browser import NEW_USER, QUIET, Editor, Mode, editor
from tools.comfyui.checkout import ROOT, newest_frontend
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
NOTE_HEIGHT = """() => {
  const line = document.querySelector(".comfy-markdown p, .comfy-markdown-content p");
  return app.canvas.ds.scale * parseFloat(getComputedStyle(line).fontSize);
}"""
# how far the nodes are from the edges of the page: left, top, right, bottom
EDGES = """() => {
  const { scale, offset } = app.canvas.ds, page = app.canvas.canvas.getBoundingClientRect();
  const boxes = app.graph.nodes.map(({ boundingRect: [x, y, width, height] }) => [x, y, x + width, y + height]);
  const [left, top, right, bottom] = [0, 1, 2, 3].map((side) =>
    Math[side < 2 ? "min" : "max"](...boxes.map((box) => (box[side] + offset[side % 2]) * scale)));
  return [page.x + left, page.y + top, innerWidth - page.x - right, innerHeight - page.y - bottom];
}"""
BARS = (56, 76, 0, 50)  # pixels that the editor's bars take of a page, at the same edges
IS_APP = "() => app.extensionManager.workflow.activeWorkflow.initialMode === 'app'"
SET = "([name, value]) => app.extensionManager.setting.set(name, value)"
READABLE = 8  # pixels; with a new user's settings an editor draws no text of nodes that is smaller
READABLE_NOTE = 6  # pixels; its usual text is smaller than that of nodes, and is drawn at any size
# pixels from the bottom of the note's last line to the bottom of the note
ROOM = """() => {
  const box = document.querySelector(".comfy-markdown, .comfy-markdown-content");
  const lines = [...box.querySelectorAll("p, td")].filter((line) => line.innerText.trim());
  return box.getBoundingClientRect().bottom - Math.max(...lines.map((line) => line.getBoundingClientRect().bottom));
}"""
# Load Self Forcing Model says what is in the file, or that there is none, which makes it higher
TOLD = """() => app.graph.nodes.filter((node) => node.type === "SFLoadModel").every((node) =>
  node.widgets.some(({ name, element }) => name === "words" && element.firstChild.offsetHeight > 0))"""
ASKED_FOR = "Error fetching file size"  # of a model that is missing: the editor asks its host


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


@contextlib.contextmanager
def settings_of_a_new_user(page: Editor) -> Iterator[None]:
    for name, value in NEW_USER.items():
        page.js(SET, [name, value])
    try:
        yield
    finally:
        for name in NEW_USER:
            page.js(SET, [name, QUIET[name]])


def each_opens(page: Editor, enlarged: bool = False) -> None:
    """One page for all: opening a page takes longer than opening a template."""
    info = page.server.object_info()
    with settings_of_a_new_user(page):
        for name in NAMES:
            content = workflow(name)
            content["extra"].pop("linearMode", None)  # App mode has no canvas; it has a test of its own
            for node in content["nodes"]:  # no dialog of missing models: it may open late, over the next test's page
                node["properties"].pop("models", None)
            page.load_workflow(content, name)
            page.page.wait_for_function(TOLD)
            page.still()
            assert set(page.js(UNKNOWN)) <= ONLY_IN_THE_EDITOR, name
            assert overlaps(page.js(BOXES)) == [], name
            assert page.js(ROOM) >= 0, f"the note of {name} is cut off"
            assert page.js(NOTE_HEIGHT) >= READABLE_NOTE, f"the note of {name}"
            assert page.js(TEXT_HEIGHT) >= READABLE, f"the view that {name} opens with"
            if not enlarged:
                assert all(room >= bar for room, bar in zip(page.js(EDGES), BARS, strict=True)), f"{name} is in view"
            assert sent(page, info) == to_prompt(workflow(name), info), name
    assert [error for error in page.errors if ASKED_FOR not in error] == []


def test_each_template_opens_readable_and_in_view_and_nothing_overlaps(page: Editor, mode: Mode) -> None:
    # the oldest editor enlarges all nodes by a fifth for its Nodes 2.0
    each_opens(page, enlarged=mode == "nodes2" and page.server.checkout.version.startswith("0.3."))


def test_each_template_opens_so_in_the_newest_editor(newest_page: Editor) -> None:
    each_opens(newest_page)


def still_in_order_after_a_run(page: Editor) -> None:
    """What nodes show then makes some of them higher. One template has each arrangement of several nodes that show."""
    with settings_of_a_new_user(page):
        for name in ("tiny_long_video", "tiny_fork_and_reroll", "tiny_step_by_step"):
            content = workflow(name)
            for node in content["nodes"]:
                if node["type"] == "SFStreamVideo":
                    node["widgets_values"][0] = 1.0  # seconds
            page.load_workflow(content, name)
            page.run()
            page.media_ready()
            page.still()
            assert overlaps(page.js(BOXES)) == [], name
    assert page.errors == []


@pytest.mark.one_mode
def test_nothing_overlaps_after_a_run(page: Editor) -> None:
    still_in_order_after_a_run(page)


def test_nothing_overlaps_after_a_run_in_the_newest_editor(newest_page: Editor) -> None:
    still_in_order_after_a_run(newest_page)


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


@pytest.mark.one_mode
@pytest.mark.parametrize("own_page", [{"Comfy.Locale": "zh"}], ids=["zh"], indirect=True)
def test_a_chinese_editor_shows_the_notes_of_templates_in_chinese(own_page: Editor) -> None:
    own_page.load_workflow(workflow("tiny_live"), "tiny_live")
    expect(own_page.page.get_by_role("heading", name="微型演示")).to_be_visible()
    assert not own_page.js("() => app.extensionManager.workflow.activeWorkflow.isModified")
    assert own_page.errors == []


BLUEPRINT = "Self Forcing (live)"
SHOWN_BY_BLUEPRINT = ["model_name", "clip_name", "vae_name", "text", "seed", "seconds"]
PREVIEW = "$$sf-preview"  # in js/lib/editor.js
OF_BLUEPRINT = "() => app.graph.nodes.filter((node) => node.subgraph)"


def add_by_search(page: Editor, name: str) -> None:
    """Add a node as a user does: search for its name on the empty canvas, and put it down."""
    search = page.page.get_by_role("dialog").or_(page.page.locator(".comfy-vue-node-search-container")).first
    while not search.is_visible():  # a page that has just opened may take the first double-click for two clicks
        page.page.mouse.dblclick(700, 300)
        with contextlib.suppress(PlaywrightTimeout):
            search.wait_for(timeout=10_000)
    page.page.keyboard.type(name, delay=20)
    page.page.get_by_text(name).first.wait_for()
    page.page.keyboard.press("Enter")
    page.page.wait_for_function("() => app.graph.nodes.length > 0")
    for x in (640, 620, 600):
        page.page.mouse.move(x, 200)
    page.page.mouse.click(600, 200)


def check_blueprint(page: Editor) -> None:
    add_by_search(page, BLUEPRINT)
    (widgets,) = page.js(f"() => ({OF_BLUEPRINT})().map((node) => node.widgets.map((widget) => widget.name))")
    assert [name for name in widgets if name in SHOWN_BY_BLUEPRINT] == SHOWN_BY_BLUEPRINT
    (outputs,) = page.js(f"() => ({OF_BLUEPRINT})().map((node) => node.outputs.map((slot) => slot.name))")
    assert outputs == ["VIDEO", "session"]
    (ident,) = page.js(f"() => ({OF_BLUEPRINT})().map((node) => node.id)")
    (outer,) = [node for node in page.workflow()["nodes"] if str(node["id"]) == str(ident)]
    (preview,) = outer["properties"]["previewExposures"]
    assert preview["sourcePreviewName"] == PREVIEW, "it shows the video outside, where the player is not"
    assert page.errors == []


@pytest.mark.one_mode
def test_a_new_comfyui_offers_the_blueprint_and_an_old_one_is_silent(page: Editor) -> None:
    if page.server.checkout.version.startswith("0.3."):
        assert BLUEPRINT not in page.server.log_text()
        assert page.errors == []
    else:
        check_blueprint(page)


def test_the_newest_editor_offers_the_blueprint(newest_page: Editor) -> None:
    check_blueprint(newest_page)


def test_the_app_opens_with_prompt_and_player_and_runs(browser: Browser, request: pytest.FixtureRequest) -> None:
    """A page of its own, since an app turns Nodes 2.0 on."""
    server = servers.get("latest", request.config)
    with editor(browser, server, "classic", frontend=newest_frontend()) as page, pictured(page, request):
        page.load_workflow(workflow("tiny_live_app"), "tiny_live_app")
        tutorial = page.page.get_by_role("button", name="Skip")  # the editor's own, on the first visit
        page.page.add_locator_handler(tutorial, lambda button: button.click())
        player = page.page.locator(".sf-player:visible").first
        player.wait_for()
        page.page.get_by_role("textbox").filter(visible=True).first.wait_for()
        assert page.js(IS_APP)
        run = page.queue()
        player.locator("canvas").first.wait_for()
        page.page.locator("img[src^='blob:']:visible").first.wait_for()  # the app's large area shows the run too
        player.get_by_role("button", name="Stop").first.click()
        page.wait(run)
        assert page.errors == []
