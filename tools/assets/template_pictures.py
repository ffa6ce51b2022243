"""The pictures that the template browser shows: `python -m tools.assets.template_pictures [names]` makes them.

For a template that runs here, its frames in the order of time; for one with a real model, its title and its graph.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.comfyui.browser import Editor, chromium, editor
from tools.comfyui.checkout import ROOT, primary
from tools.comfyui.prompt import to_prompt, with_an_end
from tools.comfyui.server import Server

from .help_pictures import PLAIN

FOLDER = ROOT / "workflows"
SIZE, GAP = 512, 6
COLOURS = ("#5aa9e6", "#f2a65a")  # what was given, or one future; the other future
COLUMNS = {"tiny_long_video": 5, "tiny_fork_and_reroll": 4, "tiny_train": 4}
GIVEN = {"tiny_image_to_video": 1, "tiny_extend_video": 3}  # cells that show what the video began with
GIVEN_FRAMES = 33  # of the clip that is gone on from
BACKGROUND, BRIGHT, PALE = "#1e1e24", "#f2f2f4", "#a9a9b4"
# of a template for a real model, which cannot run here: its title, and what it makes
CARDS = {
    "text_to_video": ("Text to video", "5 seconds at 832 x 480 from a prompt.\nSelf Forcing, Wan 2.1 1.3B"),
    "image_to_video": ("Image to video", "5 seconds that begin with a picture.\nSelf Forcing, Wan 2.1 1.3B"),
    "long_video": ("Long video", "Minutes in flat memory, prompts by time.\nSelf Forcing, Wan 2.1 1.3B"),
    "live_steering": ("Live steering", "A video without an end: type, and it follows.\nSelf Forcing, Wan 2.1 1.3B"),
    "with_lora": ("With a LoRA", "Wan 2.1 1.3B and the Self Forcing LoRA,\nor any loader of a Wan 2.1 MODEL"),
}
VIEW = 1500  # pixels, the width of the page's part that shows a whole graph
FRAME_ALL = """([left, top, width, margin]) => {
  const boxes = app.graph.groups.map((group) => group._bounding);
  boxes.push(...app.graph.nodes.map((node) => node.boundingRect));
  const [x0, y0] = [0, 1].map((axis) => Math.min(...boxes.map((box) => box[axis])) - margin);
  const [x1, y1] = [0, 1].map((axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2])) + margin);
  const { ds } = app.canvas;
  ds.scale = width / (x1 - x0);
  ds.offset[0] = left / ds.scale - x0;
  ds.offset[1] = top / ds.scale - y0;
  app.canvas.setDirty(true, true);
  return (y1 - y0) * ds.scale;
}"""


def frames_of(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as video:
        return [frame.to_image() for frame in video.decode(video=0)]


def chosen(frames: list[Image.Image], count: int) -> list[Image.Image]:
    return [frames[round(at)] for at in np.linspace(0, len(frames) - 1, count)]


def mosaic(cells: list[tuple[Image.Image, str | None]], columns: int) -> Image.Image:
    """Cells row by row, each with a frame of its colour."""
    picture = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
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


def whole_graph(tab: Editor, name: str) -> Image.Image:
    """All nodes of a template, as the editor draws them."""
    tab.load_workflow(FOLDER / f"{name}.json", name)
    tab.page.wait_for_timeout(1000)
    tab.dismiss()  # the dialog that names the missing models
    left, top = 120, 140  # clear of the editor's bars
    height = tab.js(FRAME_ALL, [left, top, VIEW, 20])
    tab.media_ready()
    tab.page.wait_for_timeout(1000)
    return tab.photo(left, top, VIEW, height)


def card(name: str, graph: Image.Image) -> Image.Image:
    """A template's title and what it makes, above its graph."""
    title, line = CARDS[name]
    picture = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((22, 26), title, fill=BRIGHT, font=ImageFont.load_default(50))
    draw.multiline_text((24, 102), line, fill=PALE, font=ImageFont.load_default(22), spacing=9)
    width = SIZE - 2 * GAP
    small = graph.resize((width, round(graph.height * width / graph.width)), Image.Resampling.LANCZOS)
    room = SIZE - GAP - 180
    picture.paste(small, (GAP, 180 + max(0, (room - small.height) // 2)))
    return picture


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
        for name in names:
            workflow = json.loads((FOLDER / f"{name}.json").read_text())
            if any(node["type"] == "SFLoadTiny" for node in workflow["nodes"]):
                picture = of_videos(name, videos_of(server, workflow))
            else:
                server.settings(PLAIN)
                with editor(browser, server, size=(VIEW + 300, 1200)) as tab:
                    picture = card(name, whole_graph(tab, name))
            picture.convert("RGB").save(FOLDER / f"{name}.jpg", quality=88, optimize=True)
            print(FOLDER / f"{name}.jpg")


if __name__ == "__main__":
    main()
