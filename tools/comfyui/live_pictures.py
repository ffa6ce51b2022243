"""Pictures of Stream Video at work: `python -m tools.comfyui.live_pictures` makes them anew, in the real editor.

Each state of the player, as js/docs/pictures/live_<state>.webp.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from .browser import Editor, chromium, editor
from .find import ROOT, primary
from .help_pictures import BLUE, PLAIN, TARGET, compressed
from .server import Server

WORKFLOW = ROOT / "workflows" / "tiny_live.json"
NODE = """() => {
  const node = app.graph.nodes.find((one) => one.type === "SFStreamVideo");
  node.setSize([300, 470]);
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [120 - node.pos[0], 120 - node.pos[1]];
  app.canvas.setDirty(true, true);
  return node.id;
}"""


def shoot(tab: Editor, state: str) -> None:
    tab.page.wait_for_timeout(400)
    picture = tab.photo(120 - 16, 120 - 46, 300 + 32, 470 + 62)
    (TARGET / f"live_{state}.webp").write_bytes(compressed(picture))


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


def steered(tab: Editor) -> None:
    """A run that is typed into, paused and stopped."""
    run, _ = begin(tab, seed=2)
    shoot(tab, "running")
    box = tab.page.locator(".sf-steering input[type=text]")
    box.fill(BLUE)
    box.press("Enter")
    tab.page.wait_for_timeout(3500)
    shoot(tab, "typed")
    press(tab, "Pause run")
    tab.page.wait_for_timeout(2500)
    shoot(tab, "paused")
    press(tab, "Stop")
    tab.wait(run)
    tab.page.locator(".sf-picture video").wait_for()
    shoot(tab, "ended")


def slow(tab: Editor) -> None:
    """Asked for more frames a second than the model makes."""
    run, _ = begin(tab, seed=3, fps=240)
    tab.page.get_by_text("slower than", exact=False).first.wait_for(timeout=20_000)
    shoot(tab, "slow")
    press(tab, "Stop")
    tab.wait(run)


def interrupted(tab: Editor) -> None:
    begin(tab, seed=4)
    tab.server.interrupt()
    tab.page.locator(".sf-picture video").wait_for()
    shoot(tab, "interrupted")


def main() -> None:
    scenes: tuple[Callable[[Editor], None], ...] = (steered, slow, interrupted)
    with tempfile.TemporaryDirectory() as base, Server(primary(), Path(base)) as server, chromium() as browser:
        server.settings(PLAIN)
        with editor(browser, server) as tab:
            for scene in scenes:
                tab.load_workflow(WORKFLOW)
                scene(tab)


if __name__ == "__main__":
    main()
