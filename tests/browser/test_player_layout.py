"""How the player looks, in every state: nothing overlaps, is cut or too pale, and the picture keeps its size."""

from __future__ import annotations

import contextlib
from typing import Any

import av
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import expect

from tests.browser.test_player import DRAWN, Live, open_graph
from tests.comfyui.graphs import Graph, Out, Tiny, probe
from tools.comfyui.browser import Editor

WIDTHS = (400, 270, 800)  # pixels of the node: as a new one, narrow, wide
RESIZE = """([width, height]) => {
  const node = app.graph.nodes.find((one) => one.type === "SFStreamVideo");
  node.setSize([width, height ?? Math.max(node.size[1], node.computeSize()[1])]);
  Object.assign(app.canvas.ds, { scale: 1, offset: [200 - node.pos[0], 60 - node.pos[1]] });
  app.canvas.setDirty(true, true);
  return node.size[1];
}"""
# what is wrong with the boxes on the player, in words
FAULTS = """() => {
  const player = document.querySelector(".sf-player");
  const outer = player.getBoundingClientRect();
  const parts = [".sf-stage", ".sf-seek", ".sf-field", ".sf-controls > button", ".sf-actions > button",
    ".sf-ended > button", ".sf-text", ".sf-more", ".sf-state", ".sf-facts", ".sf-info"];
  const shown = [...player.querySelectorAll(parts)].filter((one) => one.offsetParent && one.offsetWidth);
  const boxes = shown.map((one) => ({ one, name: one.className || one.ariaLabel, box: one.getBoundingClientRect() }));
  const faults = [];
  for (const { one, name, box } of boxes) {
    if (box.left < outer.left - 1 || box.right > outer.right + 1 || box.bottom > outer.bottom + 1)
      faults.push(`${name} is outside`);
    const mayBeCut = one.matches(".sf-text, .sf-stage, .sf-seek"); // the rest of a text is on demand
    if (!mayBeCut && one.scrollWidth > one.clientWidth + 1) faults.push(`${name} is cut: ${one.textContent}`);
    if (one.matches("button:not(.sf-more), .sf-field") && box.height < 24) faults.push(`${name} is ${box.height} high`);
  }
  boxes.forEach(({ name, box }, k) => boxes.slice(k + 1).forEach((other) => {
    const [a, b] = [box, other.box];
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 1) faults.push(`${name} and ${other.name} overlap`);
  }));
  return faults;
}"""
# texts whose contrast to what is behind them is below 4.5 : 1, and drawings below 3 : 1
PALE = """() => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  const rgb = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const linear = (one) => (one <= 10 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb(colour).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    const colour = getComputedStyle(one).backgroundColor;
    return rgb(colour)[3] === 255 ? colour : behind(one.parentElement);
  };
  const texts = [[".sf-state"], [".sf-facts"], [".sf-text"], [".sf-live"], [".sf-hint"], [".sf-ended > button"],
    [".sf-choice > *"], [".sf-item:enabled"], [".sf-legend > span"], [".sf-field > input", "::placeholder"]];
  const drawings = [[".sf-actions > button:enabled", null, 3], [".sf-controls > button:enabled", null, 3]];
  return [...texts, ...drawings].flatMap(([selector, part, least = 4.5]) =>
    [...document.querySelectorAll(`.sf-player ${selector}`)].filter((one) => one.offsetParent).flatMap((one) => {
      const [a, b] = [light(getComputedStyle(one, part).color), light(behind(one))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return contrast < least ? [`${selector} ${contrast.toFixed(2)}`] : [];
    }));
}"""
PICTURE = """() => {
  const { width, height } = document.querySelector(".sf-player .sf-picture").getBoundingClientRect();
  return [Math.round(width), Math.round(height)];
}"""
LEAKS = """() => {
  window.leaks = [];
  window.addEventListener("keydown", ({ key }) => key === "Shift" || window.leaks.push(key));
}"""


def resize(page: Editor, width: int) -> None:
    page.js(RESIZE, [width, None])
    fits = "(width) => Math.abs(document.querySelector('.sf-player').offsetWidth - width) < 40"
    page.page.wait_for_function(fits, arg=width)
    page.js(DRAWN)


def is_fine(page: Editor, state: str) -> None:
    """Nothing is wrong at any width, in both colours."""
    for width in WIDTHS:
        resize(page, width)
        with contextlib.suppress(PlaywrightTimeout):  # an editor takes some frames for a new size
            page.page.wait_for_function(f"() => ({FAULTS})().length === 0", timeout=10_000)
        assert page.js(FAULTS) == [], f"{state}, {width} pixels wide"
    resize(page, WIDTHS[0])
    is_not_pale(page, state)


def is_not_pale(page: Editor, state: str) -> None:
    for palette in ("light", "dark"):
        page.js("(name) => app.extensionManager.setting.set('Comfy.ColorPalette', name)", palette)
        page.js(DRAWN)
        assert page.js(PALE) == [], f"{state}, {palette}"


def frames_of_download(live: Live) -> int:
    live.button("More").click()
    with live.page.page.expect_download() as download:
        live.button("Download video").click()
    with av.open(str(download.value.path())) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.one_mode
def test_nothing_overlaps_is_cut_or_pale_and_the_picture_keeps_its_size(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 2")
    resize(page, WIDTHS[0])
    size = page.js(PICTURE)
    sizes: dict[str, Any] = {}

    def look(state: str) -> None:
        sizes[state] = page.js(PICTURE)
        is_fine(page, state)

    look("running")
    live.button("More").click()
    is_not_pale(page, "menu")
    page.page.keyboard.press("Escape")
    live.type("an elephant")
    expect(live.player.locator(".sf-message[data-tone=warn]")).to_be_visible()
    look("refused")
    live.button("Pause run").click()
    expect(live.player.locator(".sf-state")).to_have_text("Run paused")
    look("paused")
    downloaded = frames_of_download(live)
    assert 0 < downloaded <= page.js("() => window.states.at(-1).frames")  # a pause lets a chunk be finished
    live.stop()
    expect(live.button("Continue")).to_be_visible()
    look("stopped")
    assert sizes == dict.fromkeys(sizes, size)
    assert page.errors == []


@pytest.mark.one_mode
def test_keys_steer_and_do_not_reach_the_canvas(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 3")
    page.js(LEAKS)
    live.player.focus()
    keyboard = page.page.keyboard
    keyboard.press("c")
    live.until("state.actions.some((one) => one.action === 'cut')")
    keyboard.press("p")
    live.until("state.state === 'paused'")
    keyboard.press("Shift+ArrowLeft")
    expect(live.button("Play")).to_be_visible()
    keyboard.press("p")
    keyboard.press("f")
    page.page.wait_for_function("() => document.fullscreenElement?.matches('.sf-player')")
    is_not_pale(page, "full screen")
    keyboard.press("f")
    page.page.wait_for_function("() => !document.fullscreenElement")
    keyboard.press("/")
    box = live.player.get_by_role("textbox")
    expect(box).to_be_focused()
    keyboard.type("cpf r")
    expect(box).to_have_value("cpf r")
    box.fill("")
    assert page.js("() => window.leaks") == []
    assert [one["action"] for one in page.js("() => window.states.at(-1).actions")] == ["cut"]
    live.stop()


@pytest.mark.one_mode
def test_an_ended_run_is_kept_and_continued_and_opens_at_what_is_new(page: Editor) -> None:
    live = Live(page)
    live.until("state.chunk >= 3")
    live.stop()
    made = live.until("state.state === 'ended'")["frames"]
    live.button("Keep").click()
    expect(live.player.locator(".sf-message")).to_contain_text("Kept as a red circle")
    expect(live.button("Keep")).to_be_hidden()
    ended = page.js("() => harness.ended.length")
    page.js("() => { window.seen.length = 0; }")
    live.button("Continue").click()
    live.run = ended
    live.until(f"state.first_new === {made} && state.chunk >= 2")
    live.button("Stop").click()
    page.wait(live.run)
    # it stands at the last old frame until the first new one comes
    assert min(number for _, number, _ in live.seen()) >= made - 1
    assert page.errors == []


@pytest.mark.one_mode
def test_the_buttons_of_ended_chunks_fit_a_node_of_any_width(page: Editor) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    graph("SFSampleChunks", session=tiny.session(seed=31), chunks=1, preview_vae=tiny.vae)
    probe(graph, Out(str(len(graph.prompt))))
    open_graph(page, graph)
    page.run()
    expect(page.page.locator(".sf-player").get_by_role("button", name="Continue")).to_be_visible()
    for width in (*WIDTHS, 220):
        page.js(RESIZE.replace("SFStreamVideo", "SFSampleChunks"), [width, None])
        with contextlib.suppress(PlaywrightTimeout):
            page.page.wait_for_function(f"() => ({FAULTS})().length === 0", timeout=10_000)
        assert page.js(FAULTS) == [], f"{width} pixels wide"
