"""The player for those who hear it, and for those who touch it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.test_player import Live
from tools.comfyui.browser import Editor

HEAR = """() => {
  window.heard = [];
  for (const one of document.querySelectorAll(".sf-player :is([role=status], [aria-live])"))
    new MutationObserver(() => window.heard.push(one.textContent))
      .observe(one, { childList: true, subtree: true, characterData: true });
}"""
WITHOUT_NAME = re.compile(r'- (?:button|textbox|slider|group)(?! ")')
OFFSET = "() => [...app.canvas.ds.offset]"
AT = "() => Number(document.querySelector('.sf-player [role=slider]').getAttribute('aria-valuenow'))"


@pytest.mark.one_mode
def test_a_screen_reader_finds_names_and_reads_no_facts_aloud_while_a_video_plays(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 2")
    page.js(HEAR)
    made = page.js("() => window.states.at(-1).chunk")
    live.until(f"state.chunk >= {made + 4}")
    assert [text for text in page.js("() => window.heard") if re.search(r"\d", text)] == []
    assert WITHOUT_NAME.findall(live.player.aria_snapshot()) == []
    live.stop()
    page.page.wait_for_function("() => window.heard.includes('Stopped')")


@pytest.mark.one_mode
def test_a_finger_on_the_seek_bar_seeks_and_leaves_the_canvas_where_it_is(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 4")
    live.button("Pause run").click()
    expect(live.player.locator(".sf-state")).to_have_text("Run paused")
    box = live.player.get_by_role("slider").bounding_box()
    assert box is not None
    offset, fingers = page.js(OFFSET), page.page.context.new_cdp_session(page.page)

    def touch(kind: str, *shares: float) -> None:
        assert box is not None
        points = [{"x": box["x"] + share * box["width"], "y": box["y"] + box["height"] / 2} for share in shares]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.6)
    for share in (0.5, 0.4, 0.3, 0.2):
        touch("touchMove", share)
    touch("touchEnd")
    most = float(live.player.get_by_role("slider").get_attribute("aria-valuemax") or 0)
    page.page.wait_for_function(f"() => Math.abs(({AT})() - {0.2 * most}) <= 0.3")  # seconds
    assert page.js(OFFSET) == offset
    fingers.detach()
    live.stop()
    assert page.errors == []
