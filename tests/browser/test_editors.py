"""What the pack draws on nodes, in every editor: it survives undo, fits its node, and stays after the run."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.comfyui.graphs import Graph, Out, Tiny, forget_all
from tools.comfyui.browser import Editor
from tools.comfyui.checkout import ROOT

_seeds = itertools.count(1)
KINDS = ("SFStreamVideo", "SFSampleChunks", "SFDecodeChunks", "SFTrain", "SFPromptTimeline")
ELEMENTS = ".sf-player, .sf-timeline"
ADD = """(kinds) => kinds.forEach((kind, place) => {
  const node = LiteGraph.createNode(kind);
  node.pos = [450 * place, 0];
  app.graph.add(node);
})"""
MOVE = """() => {
  app.canvas.emitBeforeChange();
  const [x, y] = app.graph.nodes[0].pos;
  app.graph.nodes[0].pos = [x, y + 100];
  app.canvas.emitAfterChange();
}"""
PLACE = "() => app.graph.nodes[0].pos[1]"
# pixels of the graph by which a node's element ends below its node, at most; drawn in the classic canvas
OUTSIDE = """() => {
  const { scale, offset } = app.canvas.ds;
  const top = app.canvas.canvas.getBoundingClientRect().top;
  return Math.max(...app.graph.nodes.map((node) => {
    const { element } = node.widgets.find((widget) => widget.type.startsWith("sf_"));
    return (element.getBoundingClientRect().bottom - top) / scale - offset[1] - node.pos[1] - node.size[1];
  }));
}"""
AS_WORKFLOW = """async (prompt) => {
  await app.loadApiJson(prompt, "texts");
  return JSON.parse(JSON.stringify({ ...app.graph.serialize(), id: crypto.randomUUID() }));
}"""
# nodes with ComfyUI's text of the run's progress, which would say the same twice
TWICE = """() => app.graph.nodes.map((node) => (node.widgets ?? []).map((one) => one.name))
  .filter((names) => names.some((name) => name.startsWith("$$node-text")))"""
CUT = "() => [...document.querySelectorAll('.sf-words')].map((one) => one.scrollHeight - one.clientHeight)"


def drawn(page: Editor) -> Locator:
    page.js(ADD, KINDS)
    page.load_workflow(page.workflow())  # what undo goes back to
    page.fit_view()
    elements = page.page.locator(ELEMENTS)
    expect(elements).to_have_count(len(KINDS))
    return elements


def moved_and_undone(page: Editor) -> None:
    """Undo makes all nodes anew."""
    begun = page.js(PLACE)
    page.js(MOVE)
    page.command("Comfy.Undo")
    page.page.wait_for_function(f"(place) => Math.abs(({PLACE})() - place) < 1", arg=begun)


def survives_undo(page: Editor) -> None:
    elements = drawn(page)
    begun = page.js(PLACE)
    page.js(MOVE)
    for command, place in (("Comfy.Undo", begun), ("Comfy.Redo", begun + 100), ("Comfy.Undo", begun)):
        page.command(command)
        page.page.wait_for_function(f"(place) => Math.abs(({PLACE})() - place) < 1", arg=place)
        expect(elements).to_have_count(len(KINDS))
        for number in range(len(KINDS)):
            expect(elements.nth(number)).to_be_visible()
    assert page.errors == []


def test_undo_and_redo_keep_the_player_and_the_timeline(page: Editor) -> None:
    survives_undo(page)


def test_undo_and_redo_keep_them_in_the_newest_editor(newest_page: Editor) -> None:
    survives_undo(newest_page)


NOTE = ROOT / "workflows" / "tiny_live.json"
COLOURS = """() => {
  const { color, bgcolor } = app.graph.nodes.find((node) => node.type === "MarkdownNote");
  return [color || "", bgcolor || ""];
}"""


def note_stays_plain(page: Editor) -> None:
    """Its type's own yellow would be hard to read, and would come with the first undo."""
    page.load_workflow(NOTE, "tiny_live")
    moved_and_undone(page)
    assert page.js(COLOURS) == ["", ""]
    page.load_workflow(page.workflow(), "again")
    assert page.js(COLOURS) == ["", ""]
    assert page.errors == []


@pytest.mark.one_mode
def test_a_templates_note_keeps_the_colours_of_the_theme(page: Editor) -> None:
    note_stays_plain(page)


def test_a_templates_note_keeps_them_in_the_newest_editor(newest_page: Editor) -> None:
    note_stays_plain(newest_page)


@pytest.mark.parametrize("mode", ["classic"], indirect=True)  # Nodes 2.0 makes each node as large as what is in it
def test_a_new_node_is_high_enough_for_its_player(page: Editor) -> None:
    drawn(page)
    page.page.wait_for_function(f"() => ({OUTSIDE})() <= 0")


class Said:
    """A graph whose nodes all say something."""

    def __init__(self, page: Editor) -> None:
        forget_all(page.server)
        graph = Graph()
        tiny = Tiny.of(graph)
        # the newest node: an editor gives a new node of the same number the values of the one before
        session = tiny.session(seed=next(_seeds), settings=Out("7"))
        longer = tiny.sampled(session, 1)
        saved = graph("SFSaveSession", session=longer, filename_prefix="sessions/said")
        info = graph("SFSessionInfo", session=longer)
        settings = graph("SFRolloutSettings", **settings_with(page, window_frames=6))
        assert settings.number == "7"
        self.page, self.words = page, page.page.locator(".sf-words")
        self.texts: dict[str, str | re.Pattern[str]] = {
            settings.number: "window_frames is 6",
            session.node: re.compile("^(Fits|Too much)"),
            saved.number: "said_0",
            info.number: "latent frames, 1 chunks",
        }
        page.load_workflow(page.js(AS_WORKFLOW, graph.prompt), "texts")
        page.fit_view()

    def are_shown(self, *nodes: str) -> None:
        for text in nodes or self.texts.values():
            expect(self.words.filter(has_text=text)).to_be_visible()
        self.page.page.wait_for_function(f"() => ({CUT})().every((pixels) => pixels <= 0)")
        assert self.page.js(TWICE) == []


def settings_with(page: Editor, **changes: Any) -> dict[str, Any]:
    """The preset Self Forcing, with other values beside it, as a program sends them."""
    groups = page.server.get("/object_info/SFRolloutSettings")["SFRolloutSettings"]["input"]["required"]
    preset = "Self Forcing"
    return {"preset": preset, **groups["preset"][1]["sf_presets"][preset], **changes}


def texts_stay(page: Editor, again: tuple[str, ...] = ()) -> None:
    said = Said(page)
    page.run()
    said.are_shown()
    moved_and_undone(page)
    said.are_shown()
    assert page.errors == []
    workflow = page.workflow()
    page.reload()
    page.load_workflow(workflow)
    page.run()  # everything is cached
    said.are_shown(*again)
    assert page.errors == []


@pytest.mark.one_mode
def test_what_nodes_say_stays_after_the_run_and_is_said_again_by_cached_nodes(page: Editor) -> None:
    # the oldest ComfyUI sends a cached result again for nodes at the end of the graph only
    texts_stay(page, ("said_0", "latent frames, 1 chunks") if page.server.checkout.version.startswith("0.3.") else ())


def test_what_nodes_say_stays_in_the_newest_editor(newest_page: Editor) -> None:
    texts_stay(newest_page)


REPLACED = """async () => {
  const { output } = await app.graphToPrompt();
  return Object.values(output).find((node) => node.class_type === "SFSaveSession").inputs.filename_prefix;
}"""


@pytest.mark.one_mode
def test_the_name_of_a_saved_session_takes_dates_and_widgets_as_other_files_do(page: Editor) -> None:
    page.js(ADD, ["SFSaveSession", "SFSession"])
    page.set_widget(2, "seed", 77)
    prefix = "%date:yyyy%/boat_%SFSession.seed%_%width%"
    page.set_widget(1, "filename_prefix", prefix)
    year = page.js("() => String(new Date().getFullYear())")
    assert page.js(REPLACED) == f"{year}/boat_77_%width%"
    assert page.workflow()["nodes"][0]["widgets_values"] == [prefix]
