"""Pictures of everything a user sees: `python -m tools.assets.gallery` makes docs/gallery anew, in the real editor.

Every state of the player and every template, in the classic canvas and in Nodes 2.0, dark and light, with a new user's
settings, in the newest editor. `--only player` or `--only templates` makes a part of it. Look at all of it after a
change of the player, of a node's widgets or of a template.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from tools.comfyui.browser import NEW_USER, Editor, Mode, chromium, editor
from tools.comfyui.checkout import ROOT, latest, newest_frontend
from tools.comfyui.server import PromptInterrupted, Server

TARGET = ROOT / "docs" / "gallery"
WORKFLOWS = ROOT / "workflows"
LIVE = WORKFLOWS / "tiny_live.json"
MODES: tuple[Mode, ...] = ("classic", "nodes2")
THEMES = ("dark", "light")
MARGIN = 28  # around a node, for the pack's badge
LEFT, TOP = 140, 150  # of the node on the page, clear of the editor's bars
TEMPLATE_WIDTH = 720  # of a template's picture; the page has 1600
# of what is committed: every picture of the player, and each template once in either renderer and either theme
TEMPLATES_SHOWN = (("classic", "dark"), ("nodes2", "light"))
PANEL = ".sf-popup:popover-open"
PAUSE = 700  # milliseconds for the page to draw

GOOD, BAD = "a blue square moving up slowly on a white background", "a cat running in a forest"
SHOW = """([width, left, top]) => {
  const node = app.graph.nodes.find((one) => one.type === "SFStreamVideo");
  for (const other of app.graph.nodes) if (other !== node) other.pos = [-3000, other.pos[1]];
  node.pos = [0, 0];
  node.setSize([width, node.size[1]]);
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [left, top];
  app.canvas.deselectAll?.();
  app.canvas.setDirty(true, true);
}"""
BOX = """() => {
  const node = app.graph.nodes.find((one) => one.type === "SFStreamVideo");
  const element = document.querySelector(`[data-node-id='${node.id}']`);
  const box = element?.getBoundingClientRect();
  const [x, y, width, height] = node.boundingRect;
  const { offset } = app.canvas.ds, page = app.canvas.canvas.getBoundingClientRect();
  return box ? [box.x, box.y, box.width, box.height] : [page.x + x + offset[0], page.y + y + offset[1], width, height];
}"""


class Scene:
    """Stream Video on the canvas, in one editor."""

    def __init__(self, tab: Editor, width: int = 440) -> None:
        self.tab, self.width = tab, width
        tab.load_workflow(LIVE, "tiny_live")
        tab.still()
        tab.dismiss()
        tab.js(SHOW, [width, LEFT, TOP])
        self.player = tab.page.locator(".sf-player").first
        self.run = 0

    def set(self, kind: str, name: str, value: object) -> None:
        """Set a widget of the node of a type."""
        self.tab.set_widget(self.tab.js("(kind) => app.graph.nodes.find((n) => n.type === kind).id", kind), name, value)

    def begin(self, seed: int, seconds: float = 0, fps: float = 16) -> None:
        """Run it, until it shows something."""
        self.set("SFSession", "seed", seed)
        self.set("SFStreamVideo", "seconds", seconds)
        self.set("SFStreamVideo", "fps", fps)
        self.run = self.tab.queue()
        self.player.locator("canvas").first.wait_for()
        self.tab.page.wait_for_timeout(4000)

    def press(self, name: str) -> None:
        """Press a button of the player."""
        self.player.get_by_role("button", name=name, exact=True).first.click()

    def type(self, text: str) -> None:
        """Type a prompt."""
        box = self.player.get_by_role("textbox").first
        box.fill(text)
        box.press("Enter")

    def open(self, name: str) -> None:
        """Open a panel by its button."""
        self.press(name)
        self.tab.page.locator(PANEL).wait_for()

    def close(self) -> None:
        """Close the open panel."""
        self.tab.page.locator(PANEL).evaluate("(panel) => panel.hidePopover()")

    def end(self, button: str | None = None) -> None:
        """Wait for the end, after a button if one is named."""
        if button:
            self.press(button)
        with contextlib.suppress(PromptInterrupted):  # such a state is pictured too
            self.tab.wait(self.run)
        self.tab.page.wait_for_timeout(1500)


# The player's states -------------------------------------------------------------------------------------------------

State = tuple[str, Scene]


def steered(tab: Editor) -> Iterator[State]:
    """A live run with all that one can do to it."""
    scene = Scene(tab)
    yield "before a run", scene
    scene.begin(seed=2)
    yield "running", scene
    scene.type(GOOD)
    tab.page.wait_for_timeout(300)
    yield "a prompt was typed", scene
    tab.page.wait_for_timeout(4000)
    yield "the prompt holds", scene
    for name, button in (("menu", "More"), ("details", "Details")):
        scene.open(button)
        yield name, scene
        scene.close()
    scene.type(BAD)
    tab.page.wait_for_timeout(2500)
    yield "a prompt was refused", scene
    scene.type(GOOD)
    scene.press("Pause run")
    tab.page.wait_for_timeout(2500)
    yield "run paused", scene
    scene.press("Resume run")
    scene.press("Re-roll")
    tab.page.wait_for_timeout(2500)
    yield "re-rolled", scene
    scene.press("Cut")
    tab.page.wait_for_timeout(2500)
    yield "cut", scene
    scene.player.press("Home")
    scene.player.press("Space")
    tab.page.wait_for_timeout(1000)
    yield "back in time", scene
    scene.end("Stop")
    yield "stopped", scene


def finished(tab: Editor) -> Iterator[State]:
    """A run that ends by itself."""
    scene = Scene(tab)
    scene.begin(seed=3, seconds=4)
    scene.end()
    yield "finished", scene


def slow(tab: Editor) -> Iterator[State]:
    """More frames a second than the model makes."""
    scene = Scene(tab)
    scene.begin(seed=4, fps=240)
    tab.page.wait_for_timeout(4000)
    yield "slower than real time", scene
    scene.end("Stop")


def interrupted(tab: Editor) -> Iterator[State]:
    """A run that the editor's cancel button ended."""
    scene = Scene(tab)
    scene.begin(seed=5)
    tab.server.interrupt()
    scene.end()
    yield "interrupted", scene


def without_clip(tab: Editor) -> Iterator[State]:
    """Nothing to steer with."""
    scene = Scene(tab)
    tab.js(
        "() => { const n = app.graph.nodes.find((one) => one.type === 'SFStreamVideo');"
        " n.disconnectInput(n.findInputSlot('clip')); }"
    )
    scene.begin(seed=6)
    yield "without a CLIP", scene
    scene.end("Stop")


def narrow(tab: Editor) -> Iterator[State]:
    """As narrow as a node of the oldest templates."""
    scene = Scene(tab, width=270)
    scene.begin(seed=7)
    yield "narrow", scene
    scene.end("Stop")


SCENES: tuple[Callable[[Editor], Iterator[State]], ...] = (
    steered,
    finished,
    slow,
    interrupted,
    without_clip,
    narrow,
)


def states(tab: Editor) -> Iterator[tuple[str, Image.Image]]:
    """Pictures of the player by the names of its states."""
    for scene in SCENES:
        for name, shown in scene(tab):
            shown.tab.page.mouse.move(5, 5)
            shown.tab.page.wait_for_timeout(PAUSE)
            x, y, width, height = tab.js(BOX)
            yield name, tab.photo(x - MARGIN, y - MARGIN, width + 2 * MARGIN, height + 2 * MARGIN)
        tab.server.settle()


# Templates -----------------------------------------------------------------------------------------------------------


def templates(tab: Editor) -> Iterator[tuple[str, Image.Image]]:
    """Every template as it opens."""
    for path in sorted(WORKFLOWS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["extra"].pop("linearMode", None)  # in App mode the editor's own tutorial would cover it
        tab.clear()
        tab.load_workflow(content, path.stem)
        tab.still()
        tab.dismiss()
        tab.media_ready()
        page = tab.photo(0, 0, 1600, 900)
        yield path.stem, page.resize((TEMPLATE_WIDTH, TEMPLATE_WIDTH * 900 // 1600), Image.Resampling.LANCZOS)


PARTS = {"player": states, "templates": templates}


# The page ------------------------------------------------------------------------------------------------------------


def file_name(name: str, mode: str, theme: str) -> str:
    """The name of a picture."""
    return f"{name.replace(' ', '_').lower()}-{mode}-{theme}.webp"


def compressed(picture: Image.Image) -> bytes:
    """A small WebP."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, "WEBP", quality=62, method=6)
    return file.getvalue()


def make(browser: Browser, server: Server, parts: list[str], target: Path, everything: bool) -> None:
    """Write the pictures, in place of those that a part had."""
    for part in parts:
        shutil.rmtree(target / part, ignore_errors=True)
    for mode, theme in itertools.product(MODES, THEMES):
        wanted = [part for part in parts if part == "player" or everything or (mode, theme) in TEMPLATES_SHOWN]
        if not wanted:
            continue
        settings = {**NEW_USER, "Comfy.ColorPalette": theme}
        with editor(browser, server, mode, settings=settings, frontend=newest_frontend()) as tab:
            for part in wanted:
                for name, picture in PARTS[part](tab):
                    (target / part).mkdir(parents=True, exist_ok=True)
                    (target / part / file_name(name, mode, theme)).write_bytes(compressed(picture))
                    print(f"{part}: {name}, {mode}, {theme}", flush=True)


def page(target: Path) -> str:
    """The page that shows the pictures, in the order in which they were made."""
    lines = ["# Gallery", "", "What a user sees, in the newest editor that the pack is tested with."]
    lines += ["`python -m tools.assets.gallery` makes these pictures.", ""]
    for part in PARTS:
        found = sorted((target / part).glob("*.webp"), key=lambda path: path.stat().st_mtime)
        names = list(dict.fromkeys(path.stem.rsplit("-", 2)[0] for path in found))
        lines += [f"## {part.capitalize()}", ""]
        for name in names:
            shown = [f"{part}/{name}-{mode}-{theme}.webp" for mode, theme in itertools.product(MODES, THEMES)]
            shown = [one for one in shown if (target / one).is_file()]
            width = 100 // max(1, len(shown)) - 1
            lines += [f"**{name.replace('_', ' ')}**", ""]
            lines += [" ".join(f'<img src="{one}" width="{width}%" alt="{one}">' for one in shown), ""]
    return "\n".join(lines)


def main() -> None:
    """Make the gallery, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(PARTS), help="one part")
    parser.add_argument("--everything", action="store_true", help="templates in all four ways; not to commit")
    parser.add_argument("--to", type=Path, default=TARGET, help="folder")
    chosen = parser.parse_args()
    parts = [chosen.only] if chosen.only else list(PARTS)
    with tempfile.TemporaryDirectory() as base, Server(latest(), Path(base)) as server, chromium() as browser:
        make(browser, server, parts, chosen.to, chosen.everything)
    (chosen.to / "README.md").write_text(page(chosen.to), encoding="utf-8")
    size = sum(path.stat().st_size for path in chosen.to.rglob("*.webp"))
    print(f"{chosen.to}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
