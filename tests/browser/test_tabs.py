"""Copies of a workflow, in two browsers and in two tabs of one page: each shows and steers the run that it queued."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.test_player import open_graph
from tests.comfyui.graphs import BLUE, RED, Graph, Out, Tiny
from tools.comfyui.browser import Editor, Mode, editor

OPEN_COPY = """async (name) => {
  const workflow = JSON.parse(JSON.stringify(app.graph.serialize()));
  await app.loadGraphData(workflow, true, true, name);
}"""
SWITCH = """async (path) => {
  const { workflow } = app.extensionManager;
  const other = workflow.openWorkflows.find((one) => one.path === path);
  await app.loadGraphData(JSON.parse(JSON.stringify(other.activeState)), true, true, other);
}"""
PATH = "() => app.extensionManager.workflow.activeWorkflow.path"
FITS = re.compile("^(Fits|Too much)")  # the session node; Session Info says it further down
STATES = """() => {
  window.states = [];
  app.api.addEventListener("self_forcing.run", ({ detail }) => window.states.push(detail));
}"""


def graph(words: str, seed: int) -> Graph:
    made = Graph()
    tiny = Tiny.of(made)
    made("SFStreamVideo", session=tiny.session(words, seed=seed), vae=tiny.vae, seconds=0.0, fps=16.0, clip=tiny.clip)
    return made


def described_at_the_end(seed: int) -> Graph:
    """A run without an end, and a node that says something after it."""
    made = graph(RED, seed)
    (stream,) = [number for number, node in made.prompt.items() if node["class_type"] == "SFStreamVideo"]
    made("SFSessionInfo", session=Out(stream, 1))
    return made


def player(page: Editor) -> Locator:
    return page.page.locator(".sf-player").first


def stop(page: Editor) -> None:
    player(page).get_by_role("button", name="Stop", exact=True).click()


def runs(page: Editor) -> set[str]:
    seen: list[dict[str, Any]] = page.js("() => window.states")
    return {state["run"] for state in seen}


def shows_a_run(page: Editor) -> Locator:
    return player(page).locator(".sf-stop:enabled")


@pytest.mark.one_mode
def test_of_two_copies_in_one_page_each_shows_its_own_run(own_page: Editor) -> None:
    page = own_page
    page.js(STATES)
    open_graph(page, graph(RED, 901))
    page.fit_view()
    first = page.press_run()
    expect(shows_a_run(page)).to_be_visible()
    page.page.wait_for_function("() => window.states.some((state) => state.chunk >= 2)")
    original = page.js(PATH)
    page.js(OPEN_COPY, "copy")
    copy = page.js(PATH)
    page.fit_view()
    at = page.js("() => window.states.length")
    page.page.wait_for_function("(n) => window.states.length > n + 2", arg=at)
    expect(player(page)).to_be_visible()
    expect(shows_a_run(page)).to_have_count(0)
    expect(player(page).locator("canvas")).to_be_hidden()
    page.js(SWITCH, original)
    page.fit_view()
    expect(shows_a_run(page)).to_be_visible()
    stop(page)
    page.wait(first)
    expect(player(page).locator("video")).to_be_visible()
    page.js(SWITCH, copy)
    page.fit_view()
    expect(player(page).locator("video")).to_be_hidden()
    assert page.errors == []


@pytest.mark.one_mode
def test_what_a_run_says_is_on_the_nodes_of_its_tab_alone(own_page: Editor) -> None:
    page = own_page
    page.js(STATES)
    open_graph(page, described_at_the_end(903))
    page.fit_view()
    ended = page.press_run()
    words = page.page.locator(".sf-words")
    expect(words.filter(has_text=FITS)).to_be_visible()
    page.page.wait_for_function("() => window.states.some((state) => state.chunk >= 2)")
    original, state = page.js(PATH), page.js("() => window.states.at(-1)")
    page.js(OPEN_COPY, "copy")
    page.fit_view()
    page.server.post("/self_forcing/steer", {"node_id": state["node_id"], "run": state["run"], "action": "stop"})
    page.wait(ended)
    page.js(SWITCH, original)
    page.fit_view()
    for text in (FITS, "latent frames"):
        expect(words.filter(has_text=text)).to_be_visible()
    page.js(OPEN_COPY, "another copy")
    page.fit_view()
    expect(words).to_have_count(0)
    assert page.errors == []


@pytest.mark.one_mode
def test_of_two_browsers_with_one_template_each_shows_its_own_run(
    own_page: Editor, browser: Browser, mode: Mode
) -> None:
    with editor(browser, own_page.server, mode) as other:
        open_graph(own_page, graph(RED, 902))
        workflow = own_page.workflow()
        other.load_workflow(workflow, "live")
        other.js(STATES)
        own_page.js(STATES)
        for page in (own_page, other):
            page.fit_view()
        ended = own_page.press_run()
        own_page.page.wait_for_function("() => window.states.some((state) => state.chunk >= 3)")
        assert runs(other) == set()
        expect(shows_a_run(own_page)).to_be_visible()
        expect(shows_a_run(other)).to_have_count(0)
        other.set_widget(2, "text", BLUE)
        waits = other.press_run()
        expect(player(own_page)).to_contain_text("Runs that wait for the current one to end: 1")
        stop(own_page)
        own_page.wait(ended)
        other.page.wait_for_function("() => window.states.some((state) => state.chunk >= 2)")
        expect(shows_a_run(other)).to_be_visible()
        expect(player(own_page).locator("video")).to_be_visible()
        assert not runs(own_page) & runs(other)
        stop(other)
        other.wait(waits)
        assert own_page.errors == other.errors == []
