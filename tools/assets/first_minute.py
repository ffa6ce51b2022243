"""The first minute, measured and recorded: `python -m tools.assets.first_minute` makes docs/steering.webp.

What `make comfyui` does: a real ComfyUI starts, and the editor opens the template tiny_live. Then Run is pressed, the
first frame comes, a prompt is typed and the video follows it. The times are measured as it is, and printed.
The picture is recorded while all of it runs SLOWER than it is shown, so that a slow machine records every frame;
the time from Run to the first frame is shown as long as it was measured.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, CDPSession

from tools.comfyui.browser import PATIENCE, Editor, chromium
from tools.comfyui.checkout import ROOT, primary
from tools.comfyui.server import Server
from tools.make.open import link

WORKFLOW = ROOT / "workflows" / "tiny_live.json"
TARGET = ROOT / "docs" / "steering.webp"
PROMPT = "a blue square moving left"
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Graph.CanvasInfo": False, "Comfy.Minimap.Visible": False}
FPS = 16  # of the video in the picture
SHOWN_FPS = 8  # of the picture
BEFORE, PLAYS, AFTER = 1.0, 2.5, 5.0  # seconds before Run, from the first frame to the first key, after the last key
KEY = 0.07  # seconds from one key to the next
SLOWER = 6  # times: the run, the keys and the clock of the page
REPEATS = 3  # measurements of the first frame; the middle one counts
WINDOW, WIDTH = (1600, 900), 860  # of the page, and the width of the picture
MOST_BYTES = 1_500_000

OPENED = "(count) => window.app?.graph?.nodes.length === count && document.querySelector('.sf-player')"
# A pointer, since a recording has none. The caret blinks by a clock that cannot be slowed.
POINTER = """() => {
  const dot = document.createElement("div");
  dot.style.cssText = "position:fixed;z-index:99999;width:22px;height:22px;margin:-11px;border-radius:50%;" +
    "pointer-events:none;background:rgb(255 255 255 / 45%);border:2px solid #fff;left:60%;top:60%";
  document.body.append(dot);
  addEventListener("mousemove", (event) => {
    dot.style.left = `${event.clientX}px`;
    dot.style.top = `${event.clientY}px`;
  }, true);
  const style = document.createElement("style");
  style.textContent = ".sf-player input { caret-color: transparent; }";
  document.head.append(style);
}"""
# The page shows the run as one of FPS frames a second, by a clock that goes slower.
SLOW_DOWN = """([slower, fps]) => {
  const now = performance.now.bind(performance), start = now();
  performance.now = () => start + (now() - start) / slower;
  const dispatch = EventTarget.prototype.dispatchEvent;
  EventTarget.prototype.dispatchEvent = function (event) {
    if (event.type === "self_forcing.run") event.detail.fps = fps;
    return dispatch.call(this, event);
  };
}"""

Moment = tuple[float, bytes]  # seconds, the page as a PNG


@contextlib.contextmanager
def recording(tab: Editor) -> Iterator[list[Moment]]:
    """Record every change of the page while the context lasts."""
    moments: list[Moment] = []
    session: CDPSession = tab.page.context.new_cdp_session(tab.page)

    def keep(event: dict[str, Any]) -> None:
        moments.append((event["metadata"]["timestamp"], base64.b64decode(event["data"])))
        session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

    session.on("Page.screencastFrame", keep)
    session.send("Page.startScreencast", {"format": "png", "everyNthFrame": 1})
    yield moments
    session.send("Page.stopScreencast")
    session.detach()


def new_tab(browser: Browser, server: Server) -> Editor:
    """A tab of a user who has opened nothing yet."""
    context = browser.new_context(viewport={"width": WINDOW[0], "height": WINDOW[1]})
    context.set_default_timeout(PATIENCE)
    return Editor(context.new_page(), server)


def opened(tab: Editor) -> float:
    """Open the link that `make comfyui` prints, and return the seconds until the graph is there."""
    start = time.monotonic()
    tab.page.goto(link(tab.server, WORKFLOW), wait_until="domcontentloaded")
    tab.ready()
    tab.page.wait_for_function(OPENED, arg=6)
    return time.monotonic() - start


def stream_id(tab: Editor) -> int:
    """The node that streams."""
    found: int = tab.js("() => app.graph.nodes.find((node) => node.type === 'SFStreamVideo').id")
    return found


def first_frame(tab: Editor, seed: int) -> float:
    """Seconds from Run to the first frame on the page; the run is stopped."""
    session = tab.js("() => app.graph.nodes.find((node) => node.type === 'SFSession').id")
    tab.set_widget(session, "seed", seed)  # another one each time: no chunk is kept from before
    start = time.monotonic()
    run = tab.press_run()
    tab.page.locator(".sf-player canvas").first.wait_for()
    seconds = time.monotonic() - start
    stop(tab, run)
    return seconds


def stop(tab: Editor, run: int) -> None:
    """End the run as its button does."""
    tab.page.locator(".sf-player").get_by_role("button", name="Stop").first.click()
    tab.wait(run)


# the rate that Run sends, which is not what the node shows while the recording is slowed down
SEND_FPS = """([id, fps]) => {
  const widget = app.graph.getNodeById(id).widgets.find((one) => one.name === "fps");
  widget.serializeValue = () => fps;
}"""


def wait(tab: Editor, seconds: float) -> None:
    """Wait for seconds of the picture's time."""
    tab.page.wait_for_timeout(1000 * seconds * SLOWER)


def record(tab: Editor) -> tuple[list[Moment], float, float]:
    """Record all of it; returns the moments, and when Run was pressed and the first frame came."""
    stream = stream_id(tab)
    tab.js(POINTER)
    tab.js(SEND_FPS, [stream, FPS / SLOWER])
    tab.js(SLOW_DOWN, [SLOWER, FPS])
    button = tab.page.get_by_role("button", name="Run", exact=True).first.bounding_box()
    assert button is not None
    with recording(tab) as moments:
        tab.page.mouse.move(button["x"] + button["width"] / 2, button["y"] + button["height"] / 2, steps=12)
        wait(tab, BEFORE)
        pressed = time.time()
        run = tab.press_run()
        tab.page.locator(".sf-player canvas").first.wait_for()
        came = time.time()
        tab.js(SEND_FPS, [stream, FPS])
        wait(tab, PLAYS)
        box = tab.page.locator(".sf-player").get_by_role("textbox").first
        box.hover()
        box.press_sequentially(PROMPT, delay=1000 * KEY * SLOWER)
        wait(tab, 0.3)
        box.press("Enter")
        wait(tab, AFTER)
    stop(tab, run)
    return moments, pressed, came


def frames(moments: list[Moment], pressed: float, came: float, first: float) -> list[Image.Image]:
    """The newest page at each tick; from Run to the first frame it goes as fast as it went."""
    begin, end = moments[0][0], moments[-1][0]
    before, after = (pressed - begin) / SLOWER, (end - came) / SLOWER

    def recorded(shown: float) -> float:
        if shown < before:
            return begin + shown * SLOWER
        if shown < before + first:
            return pressed + (shown - before) / first * (came - pressed)
        return came + (shown - before - first) * SLOWER

    found, at = [], 0
    for tick in range(int((before + first + after) * SHOWN_FPS)):
        while at + 1 < len(moments) and moments[at + 1][0] <= recorded(tick / SHOWN_FPS):
            at += 1
        page = Image.open(io.BytesIO(moments[at][1])).convert("RGB")
        found.append(page.resize((WIDTH, round(page.height * WIDTH / page.width)), Image.Resampling.LANCZOS))
    return found


def animated(pictures: list[Image.Image]) -> bytes:
    """A WebP that repeats, in the best quality that keeps below MOST_BYTES."""
    for quality in (90, 82, 74, 66, 58, 50):
        file = io.BytesIO()
        options: dict[str, Any] = {"duration": 1000 // SHOWN_FPS, "loop": 0, "quality": quality, "method": 4}
        pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], **options)
        if file.tell() < MOST_BYTES:
            break
    return file.getvalue()


def main() -> None:
    """Measure, record, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="make no picture")
    only = parser.parse_args().measure
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as base, Server(primary(), Path(base)) as server:
        started = time.monotonic() - begin
        server.settings(SETTINGS)
        with chromium() as browser:
            tab = new_tab(browser, server)
            opens = opened(tab)
            first = statistics.median(first_frame(tab, 100 + number) for number in range(REPEATS))
            print(f"on {os.cpu_count()} CPU cores: ComfyUI answers after {started:.1f} s, the editor shows the graph")
            print(f"{opens:.1f} s after that, and the first frame is there {first:.1f} s after Run", flush=True)
            if only:
                return
            tab = new_tab(browser, server)  # otherwise the editor opens the workflow a second time, as "tiny_live (2)"
            opened(tab)
            moments, pressed, came = record(tab)
    pictures = frames(moments, pressed, came, first)
    TARGET.write_bytes(animated(pictures))
    print(f"{TARGET}: {len(moments)} pages, {len(pictures)} frames, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
