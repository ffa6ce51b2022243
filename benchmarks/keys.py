"""Time from a key to its picture: the template tiny_playable in a real ComfyUI and a real browser.

Keys are pressed while the video plays, at random moments, and each asks for another prompt than the one before. A key
is seen when the first frame of the chunk that it took effect with is drawn on the player; frames carry their numbers,
which are read from the canvas. Waits are pictures that were drawn more than half a frame late.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from sf_core import tiny
from sf_core.session.frame_counts import video_frames
from tools.comfyui.browser import Editor, chromium, editor
from tools.comfyui.checkout import primary
from tools.comfyui.prompt import to_prompt
from tools.comfyui.server import PACK, Server

from .measure import ROOT, Report

NODE = "5"  # Stream Video of the template
KEYS = ("ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight")
PAUSES = (0.7, 1.3)  # seconds between two keys
AS_WORKFLOW = """async (prompt) => {
  await app.loadApiJson(prompt, "keys");
  return JSON.parse(JSON.stringify({ ...app.graph.serialize(), id: crypto.randomUUID() }));
}"""
WATCH = """() => {
  window.keys = { pressed: [], drawn: [], state: null };
  addEventListener("keydown", () => keys.pressed.push(performance.now()), true);
  app.api.addEventListener("self_forcing.run", ({ detail }) => (keys.state = detail));
  const small = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  const pen = small.getContext("2d", { willReadFrequently: true });
  const look = () => {
    requestAnimationFrame(look);
    const canvas = document.querySelector(".sf-picture canvas:not([hidden])");
    if (!canvas || canvas.width < 2) return;
    pen.drawImage(canvas, 0, 0, 64, 64);
    const { data } = pen.getImageData(0, 0, 64, 64);
    let number = 0;
    for (let bit = 0; bit < 12; bit++) if (data[4 * (64 * 4 + 5 * bit + 2)] > 127) number |= 1 << bit;
    if (number !== keys.drawn.at(-1)?.[1]) keys.drawn.push([performance.now(), number]);
  };
  look();
}"""


def open_template(tab: Editor, fps: float) -> None:
    """Open the template, with a decoder that numbers its frames."""
    template = json.loads((ROOT / "workflows" / "tiny_playable.json").read_text(encoding="utf-8"))
    prompt = to_prompt(template, tab.server.object_info())
    inputs = prompt[NODE]["inputs"]
    prompt["numbered"] = {"class_type": "ProbeNumbered", "inputs": {"vae": inputs["vae"]}}
    inputs |= {"vae": ["numbered", 0], "fps": fps}
    workflow = tab.js(AS_WORKFLOW, prompt)
    (stream,) = (node for node in template["nodes"] if node["type"] == "SFStreamVideo")
    for node in workflow["nodes"]:
        if node["type"] == "SFStreamVideo":
            node["properties"]["keys"] = stream["properties"]["keys"]
    tab.load_workflow(workflow, "keys")
    tab.fit_view()


def first_frame(chunk: int) -> int:
    """Return the first frame of a chunk of one latent frame."""
    return video_frames(chunk, 4) if chunk else 0


def play(tab: Editor, args: argparse.Namespace) -> dict[str, Any]:
    """Run the template, press keys, stop, and return what the page saw."""
    open_template(tab, args.fps)
    tab.js(WATCH)
    run = tab.press_run()
    tab.page.wait_for_function("() => keys.state?.chunk >= 12")
    moments = random.Random(0)
    for number, key in zip(range(args.keys), itertools.cycle(KEYS)):
        tab.page.wait_for_timeout(1000 * moments.uniform(*PAUSES))
        tab.page.keyboard.press(key)
        tab.page.wait_for_function("(n) => keys.state.actions.length > n", arg=number)
    tab.page.wait_for_timeout(1000)
    seen: dict[str, Any] = tab.js("() => keys")
    tab.server.post("/self_forcing/steer", {"node_id": seen["state"]["node_id"], "action": "stop"})
    tab.wait(run, timeout=600)
    assert tab.errors == [], tab.errors
    return seen


def report_on(seen: dict[str, Any], fps: float, report: Report) -> None:
    """Add what the page saw to the report."""
    drawn: list[tuple[float, int]] = seen["drawn"]
    delays, frames = [], []
    for pressed, action in zip(seen["pressed"], seen["state"]["actions"], strict=True):
        first = first_frame(action["chunk"])
        delays.append(next(at for at, number in drawn if number >= first) - pressed)
        frames.append(first - max(number for at, number in drawn if at <= pressed))
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(drawn) if before[0] >= seen["pressed"][0]]
    report.row("key to picture", delays, "ms", most=300.0)
    report.row("frames from the one shown at the key to the first that follows it", frames, "")
    report.row("from one picture to the next", gaps, "ms")
    report.row("waits in a hundred pictures", [100 * sum(gap > 1500 / fps for gap in gaps) / len(gaps)], "")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--fps", type=float, default=float(tiny.FPS), help="default: %(default)s")
    parser.add_argument("--mode", choices=["classic", "nodes2"], default="classic", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    report = Report("keys", args)
    packs = {PACK: ROOT, "probe_pack": ROOT / "tests" / "comfyui" / "probe_pack"}
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(primary(), Path(folder), packs=packs, threads=args.threads) as server,
        chromium() as browser,
        editor(browser, server, args.mode) as tab,
    ):
        report_on(play(tab, args), args.fps, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
