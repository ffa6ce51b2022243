"""The animated picture of the README, docs/steering.webp: `python -m tools.assets.steering_picture` makes it.

The tiny demo runs in a real ComfyUI and a real browser. A prompt is typed into Stream Video, and the shape changes at
the next chunk. All of it runs SLOWER than it is shown, so that a slow machine records every frame of the video.
"""

from __future__ import annotations

import base64
import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import CDPSession

from tools.comfyui.browser import Editor, chromium, editor
from tools.comfyui.checkout import ROOT, primary
from tools.comfyui.server import Server

from .help_pictures import PLAIN

WORKFLOW = ROOT / "workflows" / "tiny_live.json"
TARGET = ROOT / "docs" / "steering.webp"
PROMPT = "a blue square moving left"
FPS = 16  # of the picture, and of the video in it
BEFORE, AFTER = 2.5, 5.0  # seconds that are recorded before the first key and after the last one
KEY = 0.07  # seconds from one key to the next
SLOWER = 6  # times: the run, the keys and the clock of the page
MOST_BYTES = 1_500_000

SCALE = 1.25  # of the canvas: its text is drawn at that size, not enlarged
LEFT, TOP = 140, 215  # of the first node on the page: clear of the editor's bars
SIZE = (860, 716)  # of the picture
MARGIN = (36, 58)  # of the picture, left of the first node and above its body
WINDOW = (1060, 990)
# A pixel of the video is five pixels of the page, so that it is sharp.
# The caret blinks by a clock that cannot be slowed.
STYLE = """
.sf-picture > canvas { width: 256px !important; height: 256px !important; image-rendering: pixelated; }
.sf-steering input { caret-color: transparent; }
"""
# Without the note and Save Video, for which there is no room. The session is folded: its line on memory is about the
# machine that makes the picture. So is the line below the player.
ARRANGE = """([scale, left, top]) => {
  const one = (type) => app.graph.nodes.find((node) => node.type === type);
  const put = (type, pos, size) => {
    one(type).pos = pos;
    one(type).setSize(size);
  };
  for (const type of ["MarkdownNote", "SaveVideo"]) app.graph.remove(one(type));
  put("SFLoadTiny", [0, 0], [230, 100]);
  put("CLIPTextEncode", [0, 180], [230, 130]);
  put("SFSession", [0, 400], [230, 100]);
  one("SFSession").collapse(true);
  put("SFStreamVideo", [275, 0], [370, 512]);
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [left / scale, top / scale];
  app.canvas.setDirty(true, true);
}"""

WITHOUT_TEXT = """() => {
  const node = app.graph.nodes.find((one) => one.type === "SFStreamVideo");
  for (const widget of node.widgets.filter((one) => one.name.includes("text-preview"))) {
    widget.computeLayoutSize = () => ({ minHeight: 0, maxHeight: 0, minWidth: 0 });
    widget.hidden = true;
  }
  node.setSize([370, 512]);
  app.canvas.setDirty(true, true);
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


def record(tab: Editor) -> list[Moment]:
    """Run the demo and steer it."""
    tab.load_workflow(WORKFLOW)
    tab.page.add_style_tag(content=STYLE)
    tab.js(ARRANGE, [SCALE, LEFT, TOP])
    tab.js(SLOW_DOWN, [SLOWER, FPS])
    stream = tab.js("() => app.graph.nodes.find((node) => node.type === 'SFStreamVideo').id")
    tab.set_widget(stream, "fps", FPS / SLOWER)
    run = tab.press_run()
    tab.page.locator(".sf-picture canvas").wait_for()
    tab.set_widget(stream, "fps", FPS)
    tab.js(WITHOUT_TEXT)
    wait(tab, 0.5)
    with recording(tab) as moments:
        wait(tab, BEFORE)
        box = tab.page.locator(".sf-steering input[type=text]")
        box.press_sequentially(PROMPT, delay=1000 * KEY * SLOWER)
        wait(tab, 0.3)
        box.press("Enter")
        wait(tab, AFTER)
    tab.page.locator(".sf-steering").get_by_role("button", name="Stop", exact=True).click()
    tab.wait(run)
    return moments


def wait(tab: Editor, seconds: float) -> None:
    """seconds: of the picture's time."""
    tab.page.wait_for_timeout(1000 * seconds * SLOWER)


def cropped(page: bytes) -> Image.Image:
    left, top = LEFT - MARGIN[0], TOP - MARGIN[1]
    return Image.open(io.BytesIO(page)).convert("RGB").crop((left, top, left + SIZE[0], top + SIZE[1]))


def frames(moments: list[Moment]) -> list[Image.Image]:
    """The newest page at each tick of FPS."""
    first, last = moments[0][0], moments[-1][0]
    found: list[Image.Image] = []
    at = 0
    for tick in range(int((last - first) / SLOWER * FPS) + 1):
        while at + 1 < len(moments) and moments[at + 1][0] <= first + tick * SLOWER / FPS:
            at += 1
        found.append(cropped(moments[at][1]))
    return found


def animated(pictures: list[Image.Image]) -> bytes:
    """A WebP that repeats, in the best quality that keeps below MOST_BYTES."""
    for quality in (90, 82, 74, 66, 58):
        file = io.BytesIO()
        rest = pictures[1:]
        pictures[0].save(
            file, "WEBP", save_all=True, append_images=rest, duration=1000 // FPS, loop=0, quality=quality, method=4
        )
        if file.tell() < MOST_BYTES:
            break
    return file.getvalue()


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(primary(), Path(base), threads=1) as server:
        server.settings({**PLAIN, "Comfy.Graph.CanvasInfo": False})
        with chromium() as browser, editor(browser, server, size=WINDOW) as tab:
            moments = record(tab)
    pictures = frames(moments)
    TARGET.write_bytes(animated(pictures))
    print(f"{TARGET}: {len(moments)} pages, {len(pictures)} frames, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
