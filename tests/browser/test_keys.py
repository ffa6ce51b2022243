"""Keys that the user has bound on a player: they steer its run, reach nothing else, and are part of the workflow."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.browser.test_player import WATCH, Live
from tests.browser.test_player_layout import LEAKS, is_fine, is_not_pale
from tools.comfyui.browser import Editor
from tools.comfyui.checkout import ROOT

KEYS = "ArrowUp = a blue square moving up\nx = cut"
KEPT = """() => {
  const [node] = app.graph.serialize().nodes.filter(({ type }) => type === "SFStreamVideo");
  return node.properties.keys;
}"""
SENT = "async () => JSON.stringify((await app.graphToPrompt()).output)"
ACTIONS = "() => window.states.at(-1).actions.map(({ action, prompt }) => prompt ?? action)"


def bind(live: Live, text: str) -> None:
    live.button("More").click()
    live.button("Keys that steer…").click()
    live.player.get_by_role("textbox", name="Keys that steer").fill(text)


@pytest.mark.one_mode
def test_a_bound_key_steers_while_a_run_is_live_and_does_what_it_always_does_after_it(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 1")
    page.js(LEAKS)
    bind(live, f"{KEYS}\nArrowUp = a circle")
    notes = live.player.locator(".sf-notes")
    expect(notes).to_contain_text("Line 3: ↑ is bound already")
    expect(notes).to_contain_text("↑: the player's own keys too")
    is_not_pale(page, "keys")
    keyboard = page.page.keyboard
    keyboard.press("ArrowDown")  # in the text
    keyboard.press("Control+a")
    keyboard.type(KEYS)
    expect(notes).not_to_contain_text("Line")
    keyboard.press("Escape")
    message = live.player.locator(".sf-message")
    live.player.focus()
    expect(message).to_contain_text("↑ X steer")
    keyboard.press("ArrowUp")
    live.until("state.actions.some((one) => one.prompt === 'a blue square moving up')")
    keyboard.press("x")
    live.until("state.actions.some((one) => one.action === 'cut')")
    expect(live.button("Pause")).to_be_visible()  # it plays: the arrow moved no frame
    assert page.js(ACTIONS) == ["a blue square moving up", "cut"]
    assert ": a blue square moving up" in page.js("() => window.states.at(-1).rows")
    live.stop()
    expect(live.button("Pause")).to_be_visible()
    live.player.focus()
    keyboard.press("ArrowUp")
    expect(live.button("Play")).to_be_visible()
    keyboard.press("x")  # nobody's
    assert page.js("() => window.leaks") == ["x"]
    assert page.js(KEPT) == KEYS
    assert "blue square" not in page.js(SENT), "keys are in no prompt"
    assert page.errors == []


@pytest.mark.one_mode
def test_without_the_keyboard_a_click_on_the_picture_only_takes_it(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 1")
    bind(live, KEYS)
    page.page.keyboard.press("Escape")
    page.js("() => document.activeElement.blur()")
    message = live.player.locator(".sf-message")
    expect(message).to_contain_text("Click the picture: then ↑ X steer")
    is_fine(page, "keys")
    live.player.locator(".sf-stage").click()
    expect(message).to_contain_text("↑ X steer")
    expect(message).not_to_contain_text("Click")
    expect(live.button("Pause")).to_be_visible()
    live.player.locator(".sf-stage").click()
    expect(live.button("Play")).to_be_visible()
    live.stop()
    assert page.errors == []


@pytest.mark.one_mode
def test_the_playable_template_is_played_with_nothing_but_run_and_the_arrows(page: Editor) -> None:
    page.load_workflow(json.loads((ROOT / "workflows" / "tiny_playable.json").read_text()), "tiny_playable")
    page.js(WATCH)
    page.js(LEAKS)
    where = page.js("() => [...app.canvas.ds.offset, app.canvas.ds.scale]")
    run = page.press_run()
    page.page.wait_for_function("() => window.states.some((state) => state.chunk >= 4)")
    for key, way in (("ArrowUp", "up"), ("ArrowLeft", "left"), ("2", "a blue square")):
        page.page.keyboard.press(key)
        page.page.wait_for_function(
            "(way) => window.states.at(-1).actions.at(-1)?.prompt.includes(way)", arg=way
        )  # at the next chunk, of four frames
    state = page.js("() => window.states.at(-1)")
    assert [one["prompt"].split(" moving ")[1].split()[0] for one in state["actions"]] == ["up", "left", "up"]
    assert page.js("() => window.leaks") == []
    assert page.js("() => [...app.canvas.ds.offset, app.canvas.ds.scale]") == where
    page.page.locator(".sf-player").get_by_role("button", name="Stop", exact=True).click()
    page.wait(run)
    assert page.errors == []
