"""The pictures of the help pages: each node in a graph that runs, in the real editor.

`python -m tools.assets.help_pictures [NodeId ...]` makes js/docs/pictures anew, all of them or those that are named.
"""

from __future__ import annotations

import io
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from sf_core.tiny.world import prompts
from tools.comfyui.browser import Editor, chromium, editor
from tools.comfyui.checkout import ROOT, primary
from tools.comfyui.server import Server

TARGET = ROOT / "js" / "docs" / "pictures"
MOST_BYTES = 60_000
WIDEST = 1000  # pixels
MARGIN = 24
PLAIN = {"Comfy.Canvas.SelectionToolbox": False, "Comfy.NodeBadge.NodeSourceBadgeMode": "None"}
RED = "a red circle moving left quickly on a black background"
BLUE = "a blue square moving up slowly on a white background"

Output = tuple[str, int]  # a node by its key, and the number of the output


@dataclass(frozen=True)
class Part:
    """A node of a picture. values: of its widgets. size: for those that are too large by themselves."""

    kind: str
    inputs: dict[str, Output] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Graph:
    """`top`: nodes in a row, folded. `columns`: the others, from left to right. All by key, and `subject` too."""

    subject: str
    parts: dict[str, Part]
    columns: list[list[str]]
    top: tuple[str, ...] = ()
    runs: bool = True


def prompt(text: str, clip: Output = ("tiny", 1)) -> Part:
    return Part("CLIPTextEncode", {"clip": clip}, {"text": text}, (230, 110))


def stream(session: Output, seconds: float = 2.0, **inputs: Output) -> Part:
    wires = {"session": session, "vae": ("tiny", 2), **inputs}
    return Part("SFStreamVideo", wires, {"seconds": seconds}, (300, 330))


def save(video: str) -> Part:
    return Part("SaveVideo", {"video": (video, 0)}, {"filename_prefix": "video"}, (230, 330))


BEGINNING = {
    "tiny": Part("SFLoadTiny"),
    "prompt": prompt(RED),
    "session": Part(
        "SFSession",
        {"model": ("tiny", 0), "positive": ("prompt", 0)},
        {"width": 64, "height": 64, "control_after_generate": "fixed"},
        (230, 210),
    ),
}
TOP = tuple(BEGINNING)
REAL = {
    "clip": Part("CLIPLoader", values={"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan"}),
    "prompt": prompt("A cat walks through high grass in the evening sun.", ("clip", 0)),
    "session": Part(
        "SFSession", {"model": ("model", 0), "positive": ("prompt", 0)}, {"control_after_generate": "fixed"}
    ),
}


def on_tiny(subject: str, columns: list[list[str]], **parts: Part) -> Graph:
    return Graph(subject, {**BEGINNING, **parts}, columns, TOP)


LESSON = {
    **{"prompts": "\n".join(prompts(24, seed=1)), "start_steps": 20, "steps": 20, "batch_size": 4, "accumulate": 1},
    **{"learning_rate": 2e-3, "rank": 16, "chunks": 3, "width": 64, "height": 64, "guidance": 0.5, "sample_every": 4},
    "checkpointing": False,
}
LOADED = Part("SFLoadModel", values={"model_name": "self_forcing_dmd.pt"})
GRAPHS = {
    "SFLoadModel": Graph("model", {**REAL, "model": LOADED}, [["model", "prompt"], ["session"]], ("clip",), runs=False),
    "SFFromModel": Graph(
        "model",
        {
            "file": Part("UNETLoader", values={"unet_name": "self_forcing_dmd.safetensors"}),
            "lora": Part("LoraLoaderModelOnly", {"model": ("file", 0)}, {"lora_name": "style.safetensors"}),
            "model": Part("SFFromModel", {"model": ("lora", 0)}),
        },
        [["file"], ["lora"], ["model"]],
        runs=False,
    ),
    "SFLoadTiny": Graph(
        "tiny",
        {**BEGINNING, "stream": stream(("session", 0)), "save": save("stream")},
        [["tiny", "prompt"], ["session"], ["stream"]],
    ),
    "SFRolloutSettings": Graph(
        "settings",
        {
            **REAL,
            "model": LOADED,
            "session": Part("SFSession", {**REAL["session"].inputs, "settings": ("settings", 0)}, {}),
            "settings": Part("SFRolloutSettings", values={"preset": "LongLive"}),
        },
        [["settings"], ["session"]],
        ("clip", "prompt", "model"),
        runs=False,
    ),
    "SFSession": Graph(
        "session",
        {**BEGINNING, "stream": stream(("session", 0)), "save": save("stream")},
        [["tiny", "prompt"], ["session"], ["stream"]],
    ),
    "SFStartFromImages": on_tiny(
        "start",
        [["image"], ["start"], ["stream"]],
        image=Part("LoadImage", values={"image": "first.png"}, size=(230, 330)),
        start=Part("SFStartFromImages", {"session": ("session", 0), "image": ("image", 0), "vae": ("tiny", 2)}),
        stream=stream(("start", 0)),
        save=save("stream"),
    ),
    "SFVideoSource": on_tiny(
        "source",
        [["clip"], ["source"], ["stream"]],
        clip=Part("LoadVideo", values={"file": "red_circle.mp4"}, size=(230, 330)),
        source=Part(
            "SFVideoSource",
            {"vae": ("tiny", 2), "video": ("clip", 0)},
            {"strength": 0.8, "schedule": "repeated"},
        ),
        prompt=prompt("a blue square"),
        stream=stream(("session", 0), source=("source", 0)),
        save=save("stream"),
    ),
    "SFSwitchPrompt": on_tiny(
        "switch",
        [["first"], ["next", "switch"], ["second"]],
        first=stream(("session", 0), 1.0),
        next=prompt(BLUE),
        switch=Part("SFSwitchPrompt", {"session": ("first", 1), "positive": ("next", 0)}),
        second=stream(("switch", 0)),
        save=save("second"),
    ),
    "SFSampleChunks": on_tiny(
        "sample",
        [["sample"], ["info"]],
        sample=Part("SFSampleChunks", {"session": ("session", 0)}),
        info=Part("SFSessionInfo", {"session": ("sample", 0)}, size=(420, 480)),
    ),
    "SFDecodeChunks": on_tiny(
        "decode",
        [["sample"], ["decode"], ["info"]],
        sample=Part("SFSampleChunks", {"session": ("session", 0)}),
        decode=Part("SFDecodeChunks", {"session": ("sample", 0), "vae": ("tiny", 2)}, size=(230, 330)),
        info=Part("PreviewImage", {"images": ("decode", 0)}, size=(230, 330)),
    ),
    "SFRewind": on_tiny(
        "rewind",
        [["first"], ["rewind"], ["second"]],
        first=stream(("session", 0), 3.0),
        rewind=Part("SFRewind", {"session": ("first", 1)}, {"chunks": 2, "new_seed": 8}),
        second=stream(("rewind", 0)),
        save=save("second"),
    ),
    "SFStreamVideo": on_tiny("stream", [["stream"], ["save"]], stream=stream(("session", 0)), save=save("stream")),
    "SFPromptTimeline": on_tiny(
        "timeline",
        [["timeline"], ["stream"]],
        timeline=Part("SFPromptTimeline", {"clip": ("tiny", 1)}, size=(400, 180)),
        stream=stream(("session", 0), 4.0, timeline=("timeline", 0)),
        save=save("stream"),
    ),
    "SFSaveSession": on_tiny(
        "keep",
        [["stream"], ["keep"]],
        stream=stream(("session", 0)),
        keep=Part("SFSaveSession", {"session": ("stream", 1)}, size=(260, 140)),
    ),
    "SFLoadSession": Graph(
        "load",
        {
            "tiny": BEGINNING["tiny"],
            "load": Part("SFLoadSession", {"model": ("tiny", 0)}, {"file": "session_00001_.session"}, (260, 110)),
            "stream": stream(("load", 0), 1.0),
            "save": save("stream"),
        },
        [["load"], ["stream"]],
        ("tiny",),
    ),
    "SFSessionInfo": on_tiny(
        "info",
        [["stream"], ["info"]],
        stream=stream(("session", 0), 4.0),
        info=Part("SFSessionInfo", {"session": ("stream", 1)}, size=(420, 480)),
    ),
    "SFVerify": Graph(
        "verify",
        {"tiny": Part("SFLoadTiny"), "verify": Part("SFVerify", {"model": ("tiny", 0)}, size=(330, 260))},
        [["tiny"], ["verify"]],
    ),
    "SFTrain": Graph(
        "train",
        {
            "tiny": Part("SFLoadTiny", values={"weights": "teacher"}),
            "train": Part(
                "SFTrain", {"model": ("tiny", 0), "clip": ("tiny", 1), "vae": ("tiny", 2)}, LESSON, (330, 860)
            ),
            "prompt": BEGINNING["prompt"],
            "session": Part(
                "SFSession", {**BEGINNING["session"].inputs, "model": ("train", 0)}, BEGINNING["session"].values
            ),
            "stream": stream(("session", 0)),
            "save": save("stream"),
        },
        [["tiny"], ["train"], ["stream"]],
        ("prompt", "session"),
    ),
}
SHOW_VIDEO = {"SFStreamVideo", "SFDecodeChunks", "SaveVideo"}
VIDEOS_SHOW = "(count) => [...document.querySelectorAll('video')].filter((one) => one.readyState >= 2).length >= count"
FILES = (
    "models/diffusion_models/self_forcing_dmd.pt",
    "models/diffusion_models/self_forcing_dmd.safetensors",
    "models/loras/style.safetensors",
    "models/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
)
BUILD = """([parts, columns, top, subject, lastId]) => {
  app.clean();
  app.graph.clear();
  app.graph.last_node_id = lastId; // the editor keeps what nodes showed by their ids
  const made = {};
  for (const [key, part] of Object.entries(parts)) {
    const node = (made[key] = LiteGraph.createNode(part.kind));
    app.graph.add(node);
    for (const [name, value] of Object.entries(part.values)) {
      const widget = node.widgets.find((one) => one.name === name);
      widget.value = value;
      widget.callback?.(value);
    }
    const least = node.computeSize();
    node.setSize(part.size ? [part.size[0], Math.max(part.size[1], least[1])] : [Math.max(230, least[0]), least[1]]);
  }
  for (const [key, part] of Object.entries(parts))
    for (const [name, [from, slot]] of Object.entries(part.inputs))
      made[from].connect(slot, made[key], made[key].findInputSlot(name));
  let x = 0;
  for (const key of top) {
    made[key].collapse(true);
    made[key].pos = [x, 0];
    x += 210;
  }
  x = 0;
  for (const column of columns) {
    let y = top.length ? 60 : 0;
    for (const key of column) {
      made[key].pos = [x, y];
      y += made[key].size[1] + 50;
    }
    x += Math.max(...column.map((key) => made[key].size[0])) + 50;
  }
  const shown = new Set([...top, ...columns.flat()]);
  for (const [key, node] of Object.entries(made)) if (!shown.has(key)) node.pos = [x + 3000, 60];
  app.canvas.selectNode(made[subject]);
  return [...shown].map((key) => made[key].id);
}"""
FRAME = """([ids, x, y]) => {
  let [left, top, right, bottom] = [1e9, 1e9, -1e9, -1e9];
  for (const node of ids.map((id) => app.graph.getNodeById(id))) {
    node.updateArea?.(app.canvas.ctx);
    const box = node.boundingRect ?? node.getBounding();
    [left, top] = [Math.min(left, box[0]), Math.min(top, box[1])];
    [right, bottom] = [Math.max(right, box[0] + box[2]), Math.max(bottom, box[1] + box[3])];
  }
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [x - left, y - top];
  app.canvas.setDirty(true, true);
  return [right - left, bottom - top];
}"""


def picture(tab: Editor, graph: Graph, last_id: int) -> Image.Image:
    parts = {key: {**vars(part), "values": dict(part.values)} for key, part in graph.parts.items()}
    if "session" in parts:  # another video than before: the speed of one from the journal would not be true
        parts["session"]["values"]["seed"] = 5 + last_id
    shown = tab.js(BUILD, [parts, graph.columns, list(graph.top), graph.subject, last_id])
    if graph.runs:
        tab.run(timeout=300)
        videos = sum(graph.parts[key].kind in SHOW_VIDEO for column in graph.columns for key in column)
        tab.page.wait_for_function(VIDEOS_SHOW, arg=videos)  # they take the place of the last previews
    x, y = 120, 120  # clear of the bars at the edges
    tab.js(FRAME, [shown, x, y])
    tab.media_ready()
    width, height = tab.js(FRAME, [shown, x, y])
    tab.page.wait_for_timeout(700)
    return tab.photo(x - MARGIN, y - MARGIN, width + 2 * MARGIN, height + 2 * MARGIN)


def compressed(image: Image.Image) -> bytes:
    image.thumbnail((WIDEST, image.height), Image.Resampling.LANCZOS)
    for quality in (80, 65, 50, 35):
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=6)
        if file.tell() < MOST_BYTES:
            break
    return file.getvalue()


def prepare(base: Path) -> None:
    """Files for the loaders to name, and a picture to begin with."""
    for name in FILES:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    (base / "input").mkdir()
    first = Image.new("RGB", (64, 64))
    first.paste((230, 30, 40), (20, 20, 42, 42))
    first.save(base / "input" / "first.png")


def main(wanted: list[str]) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as base:
        prepare(Path(base))
        with Server(primary(), Path(base)) as server, chromium() as browser:
            server.settings(PLAIN)
            with editor(browser, server, size=(1600, 1300)) as tab:
                for number, name in enumerate(wanted or GRAPHS):
                    content = compressed(picture(tab, GRAPHS[name], 100 * number))
                    (TARGET / f"{name}.webp").write_bytes(content)
                    print(f"{name}: {len(content) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
