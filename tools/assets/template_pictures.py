"""Makes the pictures that the template browser shows: `python -m tools.comfyui.pictures [names]`.

Of a workflow that runs here, its frames in the order of time; of one whose models are too big, its canvas.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw

from tools.comfyui.browser import Editor, chromium, editor
from tools.comfyui.find import ROOT, primary
from tools.comfyui.server import Server
from tools.comfyui.workflow import to_prompt, with_an_end

FOLDER = ROOT / "workflows"
SIZE, GAP = 512, 6
COLOURS = ("#5aa9e6", "#f2a65a")  # what was given, or one future; the other future
COLUMNS = {"tiny_long_video": 5, "tiny_fork_and_reroll": 4, "tiny_train": 4}
GIVEN = {"tiny_image_to_video": 1, "tiny_extend_video": 3}  # cells that show what the video began with
GIVEN_FRAMES = 33  # of the clip that is gone on from
LOOK_AT = """([x, y, scale]) => {
  const ds = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
  ds.scale = scale;
  ds.offset[0] = -x;
  ds.offset[1] = -y;
  app.canvas.setDirty(true, true);
  return [box.x, box.y];
}"""


def frames_of(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as video:
        return [frame.to_image() for frame in video.decode(video=0)]


def chosen(frames: list[Image.Image], count: int) -> list[Image.Image]:
    return [frames[round(at)] for at in np.linspace(0, len(frames) - 1, count)]


def mosaic(cells: list[tuple[Image.Image, str | None]], columns: int) -> Image.Image:
    """Cells row by row, each with a frame of its colour."""
    picture = Image.new("RGB", (SIZE, SIZE), "#1e1e24")
    draw = ImageDraw.Draw(picture)
    pitch = (SIZE - GAP) / columns
    for number, (frame, colour) in enumerate(cells):
        left, top = (round(GAP + at * pitch) for at in (number % columns, number // columns))
        side = round(pitch) - GAP
        picture.paste(frame.convert("RGB").resize((side, side), Image.Resampling.NEAREST), (left, top))
        if colour:
            draw.rectangle((left - 3, top - 3, left + side + 2, top + side + 2), outline=colour, width=3)
    return picture


def of_videos(name: str, videos: list[Path]) -> Image.Image:
    columns = COLUMNS.get(name, 3)
    count, given = columns * columns // len(videos), GIVEN.get(name, 0)
    if len(videos) > 1:
        pairs = zip(videos, COLOURS, strict=True)
        return mosaic([(frame, colour) for path, colour in pairs for frame in chosen(frames_of(path), count)], columns)
    frames = frames_of(videos[0])
    begin = GIVEN_FRAMES if given > 1 else given
    cells = [(frame, COLOURS[0]) for frame in chosen(frames[:begin], given)] if given else []
    return mosaic([*cells, *((frame, None) for frame in chosen(frames[begin:], count - given))], columns)


def of_canvas(tab: Editor, name: str) -> Image.Image:
    """Its left part: what it loads."""
    tab.load_workflow(FOLDER / f"{name}.json", name)
    tab.page.wait_for_timeout(1000)
    tab.dismiss()  # that models are missing
    side = 880
    left, top = tab.js(LOOK_AT, [-200, -180, 1.0])
    tab.page.wait_for_timeout(1000)
    return tab.photo(left + 165, top + 90, side, side).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def videos_of(server: Server, workflow: dict[str, Any]) -> list[Path]:
    outputs = server.run(with_an_end(to_prompt(workflow, server.object_info())), timeout=900)
    saved = [str(node["id"]) for node in workflow["nodes"] if node["type"] == "SaveVideo"]
    return [path for node in saved for path in server.files({node: outputs[node]})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.json")))
    names = parser.parse_args().names
    with (
        tempfile.TemporaryDirectory() as base,
        Server(primary(), Path(base), threads=1) as server,
        chromium() as browser,
    ):
        for path in (FOLDER / "input").iterdir():
            shutil.copy(path, server.base / "input")
        for name in names:
            workflow = json.loads((FOLDER / f"{name}.json").read_text())
            if any(node["type"] == "SFLoadTiny" for node in workflow["nodes"]):
                picture = of_videos(name, videos_of(server, workflow))
            else:
                with editor(browser, server, size=(1500, 1200)) as tab:
                    picture = of_canvas(tab, name)
            picture.convert("RGB").save(FOLDER / f"{name}.jpg", quality=88, optimize=True)
            print(FOLDER / f"{name}.jpg")


if __name__ == "__main__":
    main()
