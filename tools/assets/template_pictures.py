"""The moving pictures that the template browser shows: `python -m tools.assets.template_pictures [names]` makes them.

For a template that runs here, its video; for one with a real model, which cannot run here, its graph at work, drawn.
The editor asks for `<name>.jpg` and nothing else, so that is their name. They are animated WebP: a browser looks at the
content of a picture, not at its name.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw, ImageFont

from tools.comfyui.checkout import ROOT, primary
from tools.comfyui.prompt import to_prompt, with_an_end
from tools.comfyui.server import Prompt, Server

FOLDER = ROOT / "workflows"
SIZE, GAP = 384, 6
FPS = 8  # every second frame of a video
LONGEST = 40  # frames of a picture; a longer video is shown faster
MOST_BYTES = 90_000
GIVEN = {"tiny_image_to_video": 1, "tiny_extend_video": 33}  # frames that the video began with
HELD = 6  # frames that a given picture is shown for
ROWS = {
    0: "a red circle moving left quickly on a black background",
    2: "a blue square moving up slowly on a white background",
    5: "a green triangle moving right slowly on a gray background",
}
PLAYED = {
    0: "a red circle moving right quickly on a black background",
    1: "a red circle moving up quickly on a black background",
    2: "a red circle moving left quickly on a black background",
    3: "a red circle moving down quickly on a black background",
    4: "a blue square moving up slowly on a black background",
    6: "a green triangle moving left slowly on a black background",
}
STEERED = {"tiny_live": ROWS, "tiny_playable": PLAYED}  # as somebody would steer it: its prompts by the second
BACKGROUND, BRIGHT, PALE, BLUE = "#1e1e24", "#f2f2f4", "#a9a9b4", "#5aa9e6"
BODY, BUSY = "#353540", "#5aa9e6"
WIRES = {"MODEL": "#b39ddb", "CLIP": "#ffd500", "VAE": "#ff6e6e", "CONDITIONING": "#ffa931", "IMAGE": "#64b5f6"}
# of a template for a real model: its title, and what it makes
CARDS = {
    "text_to_video": ("Text to video", "5 seconds from a prompt"),
    "live_steering": ("Live steering", "type, and the video follows"),
    "prompt_timeline": ("Prompt timeline", "prompts by the second"),
    "image_to_video": ("Image to video", "5 seconds that begin with a picture"),
    "extend_video": ("Extend a clip", "it continues without a seam"),
    "long_video": ("Long video", "minutes in flat memory (LongLive)"),
    "with_lora": ("With a LoRA", "plain Wan 2.1 and the LoRA of Self Forcing"),
    "day_long": ("Without an end", "hours in flat memory (SGF+)"),
    "rolling": ("Rolling", "five chunks together (Rolling Forcing)"),
    "shots": ("Shots", "scene after scene (LongLive 2)"),
    "krea": ("Krea 14B", "a large model, three frames of past"),
}
MODEL_LINES = {"shots": "Wan 2.2 5B, 1280 x 704", "krea": "Wan 2.1 14B, 832 x 480"}
USUAL_MODEL = "Wan 2.1 1.3B, 832 x 480"


def frames_of(path: Path) -> list[Image.Image]:
    """Decode a video."""
    with av.open(str(path)) as video:
        return [frame.to_image() for frame in video.decode(video=0)]


def chosen(frames: list[Image.Image]) -> list[Image.Image]:
    """At most LONGEST frames over the whole length, every second one of a short video."""
    step = max(2, -(-len(frames) // LONGEST))
    return frames[::step]


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """A picture with a line of text at the bottom."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    draw.rectangle((0, SIZE - 30, SIZE, SIZE), fill=BACKGROUND)
    draw.text((SIZE / 2, SIZE - 15), text, fill=BRIGHT, font=font, anchor="mm")
    return picture


def side_by_side(frames: tuple[Image.Image, ...], words: tuple[str, str]) -> Image.Image:
    """Two videos, one above the other, each with a word."""
    picture = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    side = (SIZE - 3 * GAP) // 2
    for number, (frame, word) in enumerate(zip(frames, words, strict=True)):
        top = GAP + number * (side + GAP)
        picture.paste(frame.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), (SIZE - side - GAP, top))
        ImageDraw.Draw(picture).text(
            (16, top + side / 2), word, fill=BRIGHT, font=ImageFont.load_default(19), anchor="lm"
        )
    return picture


def of_videos(name: str, videos: list[Path]) -> list[Image.Image]:
    """The frames of a template's picture, of the videos that it saves."""
    if len(videos) > 1:
        words = ("with the LoRA", "without it") if name == "tiny_train" else ("one future", "another one")
        pairs = zip(*(chosen(frames_of(path)) for path in videos), strict=True)
        return [side_by_side(pair, words) for pair in pairs]
    frames = frames_of(videos[0])
    if name == "tiny_video_to_video":
        pairs = zip(chosen(frames_of(FOLDER / "input" / "red_circle.mp4")), chosen(frames), strict=True)
        return [side_by_side(pair, ("the clip", "the video")) for pair in pairs]
    large = [frame.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC) for frame in frames]
    if (given := GIVEN.get(name, 0)) == 1:
        return [captioned(large[0], "the picture")] * HELD + chosen(large[1:])
    if given:
        return [captioned(frame, "the clip") for frame in chosen(large[:given])] + chosen(large[given:])
    if rows := {**STEERED, "tiny_prompt_timeline": TIMELINE_ROWS}.get(name):
        seconds = [number / 16 for number in range(len(large))]
        for frame, second in zip(large, seconds, strict=True):
            captioned(frame, rows[max(start for start in rows if start <= second)])
    return chosen(large)


TIMELINE_ROWS = {3 * number: text for number, text in enumerate(ROWS.values())}  # of the template itself


# A graph at work -----------------------------------------------------------------------------------------------------


def curve(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """Points of a wire, as the editor draws it."""
    (x, y), (u, v) = start, end
    reach = max(12.0, abs(u - x) / 2)
    points = []
    for step in range(17):
        t = step / 16
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        points.append((a * x + b * (x + reach) + c * (u - reach) + d * u, a * y + b * y + c * v + d * v))
    return points


def at_work(workflow: dict[str, Any], title: str, line: str, model: str = USUAL_MODEL) -> Iterator[Image.Image]:
    """The graph of a template, node after node at work, below its title."""
    nodes = [node for node in workflow["nodes"] if node["type"] != "MarkdownNote"]
    left, top = (min(node["pos"][axis] for node in nodes) for axis in (0, 1))
    wide, high = (
        max(node["pos"][axis] + node["size"][axis] for node in nodes) - low for axis, low in ((0, left), (1, top))
    )
    scale = min((SIZE - 32) / wide, (SIZE - 150) / high)
    down = 120 + (SIZE - 136 - high * scale) / 2

    def at(x: float, y: float) -> tuple[float, float]:
        return 16 + (x - left) * scale, down + (y - top) * scale

    order = sorted(nodes, key=lambda node: depth(node["id"], workflow["links"]))
    for busy in [*range(len(order)), *[len(order) - 2] * 8]:
        picture = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
        draw = ImageDraw.Draw(picture)
        draw.text((16, 18), title, fill=BRIGHT, font=ImageFont.load_default(38))
        draw.text((17, 66), line, fill=PALE, font=ImageFont.load_default(18))
        draw.text((17, 90), model, fill=PALE, font=ImageFont.load_default(14))
        boxes = {
            node["id"]: (*at(*node["pos"]), *at(*map(sum, zip(node["pos"], node["size"], strict=True))))
            for node in nodes
        }
        for _, source, _, target, slot, kind in workflow["links"]:
            ends = (boxes[source][2], boxes[source][1] + 6), (boxes[target][0], boxes[target][1] + 6 + 3 * slot)
            draw.line(curve(*ends), fill=WIRES.get(kind, "#8a8a96"), width=2)
        for number, node in enumerate(order):
            works = number == busy
            draw.rounded_rectangle(
                boxes[node["id"]], 5, fill=BODY, outline=BUSY if works else "#4a4a56", width=3 if works else 1
            )
            if node["type"] == "SFStreamVideo":
                screen(draw, boxes[node["id"]], busy >= number)
        yield picture


def screen(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], plays: bool) -> None:
    """The player of Stream Video, as a sign."""
    left, top, right, bottom = box
    draw.rectangle((left + 10, top + 22, right - 10, bottom - 14), fill="#101014")
    x, y = (left + right) / 2, (top + bottom + 8) / 2
    draw.polygon([(x - 10, y - 13), (x - 10, y + 13), (x + 14, y)], fill=BLUE if plays else "#4a4a56")


def depth(node: int, links: list[list[Any]]) -> int:
    """The number of nodes that must run before one, in the longest chain."""
    return max((depth(link[1], links) + 1 for link in links if link[3] == node), default=0)


# Files ---------------------------------------------------------------------------------------------------------------


def animated(pictures: Iterable[Image.Image]) -> bytes:
    """An animated WebP that repeats, in the best quality that keeps below MOST_BYTES."""
    first, *rest = pictures
    for quality in (85, 75, 65, 55, 45, 35):
        file = io.BytesIO()
        first.save(
            file, "WEBP", save_all=True, append_images=rest, duration=1000 // FPS, loop=0, quality=quality, method=6
        )
        if file.tell() < MOST_BYTES:
            break
    return file.getvalue()


def prompt_of(name: str, workflow: dict[str, Any], server: Server) -> Prompt:
    """What is run; a live video is steered by rows of a timeline."""
    prompt = with_an_end(to_prompt(workflow, server.object_info()), 8.0)
    if name in STEERED:
        rows = "\n".join(f"{second}: {text}" for second, text in STEERED[name].items())
        (stream,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "SFStreamVideo")
        prompt["rows"] = {
            "class_type": "SFPromptTimeline",
            "inputs": {"clip": stream["clip"], "rows": rows, "recache": name != "tiny_playable"},
        }
        stream["timeline"] = ["rows", 0]
    return prompt


def videos_of(server: Server, name: str, workflow: dict[str, Any]) -> list[Path]:
    """Run a template, and return the videos that it saved."""
    outputs = server.run(prompt_of(name, workflow, server), timeout=1200)
    saved = [str(node["id"]) for node in workflow["nodes"] if node["type"] == "SaveVideo"]
    return [path for node in saved for path in server.files({node: outputs[node]})]


def main() -> None:
    """Make the pictures of the templates that are named, or of all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.json")))
    names = parser.parse_args().names
    workflows = {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in names}

    def write(name: str, pictures: Iterable[Image.Image]) -> None:
        target = FOLDER / f"{name}.jpg"
        target.write_bytes(animated(pictures))
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB", flush=True)

    for name in [name for name in names if name in CARDS]:
        write(name, at_work(workflows[name], *CARDS[name], MODEL_LINES.get(name, USUAL_MODEL)))
    if runnable := [name for name in names if name not in CARDS]:
        with tempfile.TemporaryDirectory() as base, Server(primary(), Path(base), threads=1) as server:
            for name in runnable:
                write(name, of_videos(name, videos_of(server, name, workflows[name])))


if __name__ == "__main__":
    main()
