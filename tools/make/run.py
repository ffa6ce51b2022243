"""`make run`: run a workflow in a real ComfyUI, first through its API, then in its editor in a headless browser.

Writes video.mp4 and canvas.png, a picture of the editor after the run, to the project's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ..comfyui.checkout import CACHE, ROOT, Unavailable, primary
from ..comfyui.prompt import WorkflowError, to_prompt
from ..comfyui.server import PromptFailed, PromptRejected, Server, ServerFailed

BASE = CACHE / "base"
VIDEOS = {".mp4", ".webm"}


def make_video(server: Server, workflow: dict[str, Any], target: Path) -> None:
    """Run the workflow through the API, and copy its video to ``target``."""
    outputs = server.run(to_prompt(workflow, server.object_info()), timeout=900)
    videos = [path for path in server.files(outputs) if path.suffix in VIDEOS]
    if not videos:
        raise WorkflowError(f"the workflow saved no video; it saved {[str(path) for path in server.files(outputs)]}")
    shutil.copyfile(videos[0], target)


def picture_of_canvas(server: Server, workflow: dict[str, Any], name: str, target: Path) -> None:
    """Run the workflow in the editor, and save a picture of it."""
    from playwright.sync_api import Error as PlaywrightError

    from ..comfyui.browser import chromium, editor

    try:
        with chromium() as browser, editor(browser, server) as tab:
            tab.load_workflow(workflow, name)
            tab.wait(tab.press_run(), timeout=900)
            tab.fit_view()
            tab.media_ready()
            tab.screenshot(target)
    except PlaywrightError as error:
        raise Unavailable(f"the browser gave up: {error}") from error


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workflow", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT, help="the folder for the video and the picture")
    args = parser.parse_args()
    video, canvas = (args.out.resolve() / name for name in ("video.mp4", "canvas.png"))
    for old in (video, canvas):
        old.unlink(missing_ok=True)  # a failed run must not leave those of the last run
    started = time.monotonic()
    try:
        workflow = json.loads(args.workflow.read_text())
        checkout = primary()
        with Server(checkout, BASE) as server:
            print(f"ComfyUI {checkout.version} answers after {time.monotonic() - started:.0f} s")
            failed = server.failed_packs()
            if failed:
                raise ServerFailed("ComfyUI could not import the pack:\n" + "\n".join(failed.values()))
            make_video(server, workflow, video)
            print(f"video:  {video}")
            # otherwise the editor's run takes every result from the cache, and the nodes show no progress
            server.free()
            shutil.rmtree(server.base / "temp" / "self_forcing" / "chunks", ignore_errors=True)
            try:
                picture_of_canvas(server, workflow, args.workflow.stem, canvas)
                print(f"canvas: {canvas}")
            except (ImportError, Unavailable) as error:
                print(f"NO PICTURE of the canvas: {error}", file=sys.stderr)
    except (OSError, Unavailable, ServerFailed, WorkflowError, PromptRejected, PromptFailed) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    print(f"done in {time.monotonic() - started:.0f} s; `make comfyui` opens the editor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
