"""Pictures of Stream Video at work: `python -m tools.assets.live_pictures` makes them anew, in the real editor.

The states of its player, side by side in js/docs/pictures/SFStreamVideo_live.webp.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tools.comfyui.browser import Editor, chromium, editor
from tools.comfyui.checkout import ROOT, primary
from tools.comfyui.server import Server

from .help_pictures import BLUE, PLAIN, TARGET, compressed

WORKFLOW = ROOT / "workflows" / "tiny_live.json"
NODE = """() => {
  const node = app.graph.nodes.find((one) => one.type === "SFStreamVideo");
  node.setSize([400, 540]); // WIDTH, HEIGHT
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [120 - node.pos[0], 120 - node.pos[1]];
  app.canvas.setDirty(true, true);
  return node.id;
}"""


WIDTH, HEIGHT, MARGIN, TITLE = 400, 540, 14, 44  # of the node on the page, and what is seen around it
COLUMNS, CAPTION = 3, 26
WIDEST = 1000  # pixels of a picture in the help

Pictures = dict[str, Image.Image]


def shoot(tab: Editor, pictures: Pictures, caption: str) -> None:
    tab.page.wait_for_timeout(400)
    size = (WIDTH + 2 * MARGIN, HEIGHT + MARGIN + TITLE)
    pictures[caption] = tab.photo(120 - MARGIN, 120 - TITLE, *size)


def side_by_side(pictures: Pictures) -> Image.Image:
    width, height = next(iter(pictures.values())).size
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * (height + CAPTION)), "#1e1e24")
    draw = ImageDraw.Draw(sheet)
    for number, (caption, picture) in enumerate(pictures.items()):
        left, top = number % COLUMNS * width, number // COLUMNS * (height + CAPTION)
        draw.text((left + MARGIN, top + 6), caption, fill="#e8e8ea", font=ImageFont.load_default(14))
        sheet.paste(picture, (left, top + CAPTION))
    sheet.thumbnail((WIDEST, sheet.height), Image.Resampling.LANCZOS)
    return sheet


def press(tab: Editor, name: str) -> None:
    tab.page.locator(".sf-steering").get_by_role("button", name=name, exact=True).click()


def begin(tab: Editor, seed: int, fps: float = 16) -> tuple[int, int]:
    """(what `Editor.wait` takes, the node's id) of a run that has shown something."""
    node = tab.js(NODE)
    tab.set_widget(node, "fps", fps)
    session = tab.js("() => app.graph.nodes.find((one) => one.type === 'SFSession').id")
    tab.set_widget(session, "seed", seed)
    run = tab.press_run()
    tab.page.locator(".sf-picture canvas").wait_for()
    tab.page.wait_for_timeout(4000)
    return run, node


def type_prompt(tab: Editor, prompt: str) -> None:
    box = tab.page.locator(".sf-steering input[type=text]")
    box.fill(prompt)
    box.press("Enter")


def steered(tab: Editor, pictures: Pictures) -> None:
    """A run that is typed into, paused and stopped."""
    run, _ = begin(tab, seed=2)
    shoot(tab, pictures, "It runs")
    type_prompt(tab, BLUE)
    tab.page.wait_for_timeout(3500)
    shoot(tab, pictures, "A prompt was typed")
    press(tab, "Pause run")
    tab.page.wait_for_timeout(2500)
    shoot(tab, pictures, "Paused")
    press(tab, "Stop")
    tab.wait(run)
    tab.page.locator(".sf-picture video").wait_for()
    shoot(tab, pictures, "Stopped: Continue, Keep and Replay")


def slow(tab: Editor, pictures: Pictures) -> None:
    """Asked for more frames a second than the model makes."""
    run, _ = begin(tab, seed=3, fps=240)
    tab.page.locator(".sf-status[data-tone=late]").wait_for(timeout=20_000)
    shoot(tab, pictures, "Slower than real time")
    press(tab, "Stop")
    tab.wait(run)


def interrupted(tab: Editor, pictures: Pictures) -> None:
    begin(tab, seed=4)
    tab.server.interrupt()
    tab.page.locator(".sf-picture video").wait_for()
    shoot(tab, pictures, "Interrupted")


def main() -> None:
    scenes: tuple[Callable[[Editor, Pictures], None], ...] = (steered, slow, interrupted)
    pictures: Pictures = {}
    with tempfile.TemporaryDirectory() as base, Server(primary(), Path(base)) as server, chromium() as browser:
        server.settings(PLAIN)
        with editor(browser, server) as tab:
            for scene in scenes:
                tab.load_workflow(WORKFLOW)
                scene(tab, pictures)
    (TARGET / "SFStreamVideo_live.webp").write_bytes(compressed(side_by_side(pictures)))


if __name__ == "__main__":
    main()
