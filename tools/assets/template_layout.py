"""Places the nodes of all templates: `python -m tools.assets.template_layout [names]`.

Each template has a declared arrangement of rows and columns (`LAYOUTS`). Heights of nodes are measured in the editors
that users have, classic and Nodes 2.0, because they differ; the largest one counts. Run it after a node got another
widget or another player.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.comfyui.browser import Editor, Mode, chromium, editor
from tools.comfyui.checkout import ROOT, latest, newest_frontend, primary
from tools.comfyui.server import Server

FOLDER = ROOT / "workflows"
GAP, TITLE = 36, 30  # between nodes; of a node
PAD, HEAD, GROUP_GAP = 20, 44, 30  # within a group, its title, between groups
VIEW = (80, 100, 1500, 715)  # left, top, width, height of what the editor's bars leave of a page of 1600 x 900
LARGEST = 0.9  # scale that a small graph opens with
# of a body, in pixels: what a node is wide, and how high at least, for what it shows during and after a run
WIDTHS = {"MarkdownNote": 390, "CLIPTextEncode": 360, "SFStreamVideo": 440, "SFTrain": 420, "SFSession": 320}
WIDTHS |= {
    "SFPromptTimeline": 480,
    "SaveVideo": 320,
    "SFSampleChunks": 400,
    "SFDecodeChunks": 400,
    "SFSessionInfo": 340,
}
USUAL_WIDTH = 300
HEIGHTS = {"SFStreamVideo": 540, "SaveVideo": 440, "SFSession": 390, "SFSampleChunks": 430, "SFDecodeChunks": 430}
HEIGHTS |= {"SFTrain": 1000, "LoadImage": 364, "LoadVideo": 300, "SFSessionInfo": 560}
HEIGHTS |= {"CLIPTextEncode": 130, "SFPromptTimeline": 300}
# what takes the width that is left in a row; where none of them is, the last of the row
WIDENS = (("SFStreamVideo",), ("CLIPTextEncode", "SFPromptTimeline"))
HEIGHTENS: tuple[str, ...] = (
    *("MarkdownNote", "SFStreamVideo", "SaveVideo", "CLIPTextEncode", "SFPromptTimeline", "SFDecodeChunks"),
    *("SFSampleChunks", "SFSessionInfo"),
)

Sizes = dict[int, tuple[float, float]]  # node id: width, height of its body


@dataclass
class Box:
    """A part of an arrangement. children: from left to right, or from top to bottom."""

    kind: str  # "node", "row", "column", "group"
    name: str = ""  # a node's title or type, with "#2" for the second one; a group's title
    children: list[Box] = field(default_factory=list)
    node: dict[str, Any] = field(default_factory=dict)

    @property
    def gap(self) -> int:
        """Pixels between children."""
        return GROUP_GAP if any(child.holds("group") for child in self.children) else GAP

    def holds(self, kind: str) -> bool:
        """Whether this is a box of the kind, or has one inside."""
        return self.kind == kind or any(child.holds(kind) for child in self.children)

    def has(self, types: Sequence[str]) -> bool:
        """Whether a node of the types is inside."""
        return self.node.get("type") in types or any(child.has(types) for child in self.children)


def row(*children: Box | str) -> Box:
    """Arrange from left to right."""
    return Box("row", children=_boxes(children))


def column(*children: Box | str) -> Box:
    """Arrange from top to bottom."""
    return Box("column", children=_boxes(children))


def group(title: str, *children: Box | str) -> Box:
    """Arrange from left to right, in a group of the editor."""
    return Box("group", title, [row(*children)])


def _boxes(children: Sequence[Box | str]) -> list[Box]:
    return [Box("node", child) if isinstance(child, str) else child for child in children]


# Arrangements --------------------------------------------------------------------------------------------------------


Part = tuple[Box | str, ...]  # a group's title and what is in it


def real(*rows: list[Part]) -> Box:
    """A template for a real model: the note at the left, numbered groups in rows."""
    number = itertools.count(1)
    groups = [[group(f"{next(number)}. {title}", *parts) for title, *parts in one] for one in rows]
    return row("MarkdownNote", column(*(row(*one) for one in groups)))


MODELS: Part = ("Models", "SFLoadModel", column("CLIPLoader", "VAELoader"))
WITH_LORA: Part = (
    "Models",
    column("UNETLoader", "LoraLoaderModelOnly"),
    column("CLIPLoader", "VAELoader"),
    "SFFromModel",
)
PROMPT: Part = ("Prompt", "CLIPTextEncode")
PROMPTS: Part = ("Prompts", "CLIPTextEncode", "SFPromptTimeline")
PICTURE: Part = ("Picture", "LoadImage")
CLIP: Part = ("Clip", "LoadVideo", "GetVideoComponents")
SETTINGS: Part = ("Settings", "SFRolloutSettings")
SESSION: Part = ("Session", "SFSession")
BEGINNING: Part = ("Session", column("SFSession", "SFStartFromImages"))
VIDEO: Part = ("Video", "SFStreamVideo", "SaveVideo")
TINY = row(column("SFLoadTiny", "CLIPTextEncode"), "SFSession")  # below the note
LIVE = row(column("MarkdownNote", TINY), "SFStreamVideo", "SaveVideo")

LAYOUTS: dict[str, Box] = {
    "text_to_video": real([MODELS, PROMPT], [SETTINGS, SESSION, VIDEO]),
    "live_steering": real([MODELS, PROMPT], [SETTINGS, SESSION, VIDEO]),
    "prompt_timeline": real([MODELS, PROMPTS], [SETTINGS, SESSION, VIDEO]),
    "image_to_video": real([MODELS, PROMPT, PICTURE], [SETTINGS, BEGINNING, VIDEO]),
    "extend_video": real([MODELS, PROMPT, CLIP], [SETTINGS, BEGINNING, VIDEO]),
    "long_video": real([MODELS, PROMPTS], [SESSION, VIDEO]),
    "day_long": real([MODELS, PROMPT], [SESSION, VIDEO]),
    "rolling": real([MODELS, PROMPT], [SESSION, VIDEO]),
    "shots": real([MODELS, PROMPTS], [SESSION, VIDEO]),
    "krea": real([MODELS, PROMPTS], [SESSION, VIDEO]),
    "with_lora": real([WITH_LORA, PROMPT], [SETTINGS, SESSION, VIDEO]),
    "tiny_live": LIVE,
    "tiny_live_app": LIVE,
    "tiny_playable": LIVE,
    "tiny_text_to_video": LIVE,
    "tiny_image_to_video": row(
        column("MarkdownNote", TINY),
        group("The beginning", column("LoadImage", "SFStartFromImages")),
        column("SFStreamVideo"),
        "SaveVideo",
    ),
    "tiny_extend_video": row(
        column("MarkdownNote", TINY),
        group("The clip so far", column("LoadVideo", "GetVideoComponents", "SFStartFromImages")),
        "SFStreamVideo",
        "SaveVideo",
    ),
    "tiny_video_to_video": row(
        column("MarkdownNote", TINY),
        group("The clip", column("LoadVideo", "SFVideoSource")),
        "SFStreamVideo",
        "SaveVideo",
    ),
    "tiny_prompt_timeline": row(column("MarkdownNote", TINY, "SFPromptTimeline"), "SFStreamVideo", "SaveVideo"),
    "tiny_long_video": row(
        column("MarkdownNote", row(column("SFLoadTiny", "CLIPTextEncode"), "SFRolloutSettings")),
        "SFSession",
        "SFStreamVideo",
        column("SaveVideo", "SFSessionInfo"),
    ),
    "tiny_fork_and_reroll": row(
        column("MarkdownNote", TINY),
        column("SFSampleChunks", "SFRewind"),
        column("SFStreamVideo", "SFStreamVideo#2"),
        column("SaveVideo", "SaveVideo#2"),
    ),
    "tiny_step_by_step": column(
        row(
            "MarkdownNote",
            column("SFLoadTiny", "CLIPTextEncode"),
            column("CLIPTextEncode#2", "CLIPTextEncode#3"),
            "SFSession",
        ),
        row(
            "SFSampleChunks",
            column("SFSwitchPrompt", "SFSampleChunks#2"),
            column("SFSwitchPrompt#2", "SFSampleChunks#3"),
            "SFDecodeChunks",
            column("CreateVideo", "SaveVideo"),
        ),
    ),
    "tiny_train": row(
        column("MarkdownNote", "SFLoadTiny", "CLIPTextEncode"),
        "SFTrain",
        column("SFSession", "SFSession#2"),
        column("SFStreamVideo", "SFStreamVideo#2"),
        column("SaveVideo", "SaveVideo#2"),
    ),
}


# Measuring -----------------------------------------------------------------------------------------------------------

# {node id: height of its body at least}, as this editor draws it
MEASURE = """() => Object.fromEntries(app.graph.nodes.map((node) => {
  const { scale, offset } = app.canvas.ds;
  const element = document.querySelector(`[data-node-id='${node.id}']`);
  let height = element ? element.getBoundingClientRect().height / scale - LiteGraph.NODE_TITLE_HEIGHT
    : node.computeSize()[1];
  if (node.type === "MarkdownNote") {
    const box = document.querySelector(".comfy-markdown, .comfy-markdown-content");
    const lines = [...box.querySelectorAll("h2, p, td")].filter((line) => line.innerText.trim());
    const top = app.canvas.canvas.getBoundingClientRect().top + (node.pos[1] + offset[1]) * scale;
    height = (Math.max(...lines.map((line) => line.getBoundingClientRect().bottom)) - top) / scale + 24;
  }
  return [node.id, height];
}))"""


def measured(tab: Editor, name: str, workflow: dict[str, Any], sizes: Sizes) -> Sizes:
    """Heights of the nodes of a template in one editor, at the widths of ``sizes``."""
    small = copy.deepcopy(workflow)
    small["extra"].pop("linearMode", None)  # App mode has no canvas, and turns Nodes 2.0 on for good
    for node in small["nodes"]:
        node["size"] = [sizes[node["id"]][0], 900 if node["type"] == "MarkdownNote" else TITLE]
    tab.load_workflow(small, name)
    tab.still()
    tab.dismiss()
    tab.js("() => { app.canvas.ds.scale = 1; app.canvas.setDirty(true, true); }")
    tab.still()
    heights = tab.js(MEASURE)
    return {node: (width, max(height, heights[str(node)])) for node, (width, height) in sizes.items()}


def in_all_editors(templates: dict[str, dict[str, Any]], sizes: dict[str, Sizes]) -> dict[str, Sizes]:
    """The largest size of every node, over the editors."""
    with tempfile.TemporaryDirectory() as base, chromium() as browser:
        for checkout, frontends in ((primary(), [None]), (latest(), [None, newest_frontend()])):
            modes: list[Mode] = ["classic"] if checkout == primary() else ["classic", "nodes2"]
            with Server(checkout, Path(base) / checkout.version) as server:
                for frontend in frontends:
                    for mode in modes:
                        with editor(browser, server, mode, frontend=frontend) as tab:
                            for name, workflow in templates.items():
                                sizes[name] = measured(tab, name, workflow, sizes[name])
    return sizes


# Placing -------------------------------------------------------------------------------------------------------------


def bound(box: Box, nodes: list[dict[str, Any]]) -> Box:
    """A copy of the arrangement with the template's nodes in it."""
    if box.kind != "node":
        return Box(box.kind, box.name, [bound(child, nodes) for child in box.children])
    kind, _, number = box.name.partition("#")
    return Box("node", box.name, node=[node for node in nodes if node["type"] == kind][int(number or 1) - 1])


def needed(box: Box, sizes: Sizes) -> tuple[float, float]:
    """Width and height that a box takes at least, titles included."""
    if box.kind == "node":
        width, height = sizes[box.node["id"]]
        return width, height + TITLE
    inside = [needed(child, sizes) for child in box.children]
    widths, heights = [width for width, _ in inside], [height for _, height in inside]
    gaps = box.gap * (len(inside) - 1)
    if box.kind == "group":
        return widths[0] + 2 * PAD, heights[0] + HEAD + PAD
    return (sum(widths) + gaps, max(heights)) if box.kind == "row" else (max(widths), sum(heights) + gaps)


def shares(box: Box, needs: list[float], room: float) -> list[float]:
    """What each child gets of the width of a row, or of the height of a column."""
    choices = WIDENS if box.kind == "row" else (HEIGHTENS,)
    takers = next((found for types in choices if any(found := [child.has(types) for child in box.children])), None)
    takers = takers or [box.kind == "row" and child is box.children[-1] for child in box.children]
    extra = room - sum(needs) - box.gap * (len(needs) - 1)
    return [
        need + extra / sum(takers) * taker if any(takers) else need for need, taker in zip(needs, takers, strict=True)
    ]


def place(box: Box, x: float, y: float, width: float, height: float, sizes: Sizes) -> list[dict[str, Any]]:
    """Set position and size of all nodes in a box, and return the groups."""
    if box.kind == "node":
        own = sizes[box.node["id"]][1]
        tall = height - TITLE if box.has(HEIGHTENS) else own
        box.node |= {"pos": [round(x), round(y) + TITLE], "size": [round(width), round(tall)]}
        return []
    if box.kind == "group":
        bounding = [round(side) for side in (x, y, width, height)]
        frame = {"title": box.name, "bounding": bounding, "color": "#3f789e", "font_size": 24, "flags": {}}
        return [frame, *place(box.children[0], x + PAD, y + HEAD, width - 2 * PAD, height - HEAD - PAD, sizes)]
    groups = []
    needs = [needed(child, sizes)[0 if box.kind == "row" else 1] for child in box.children]
    for child, share in zip(box.children, shares(box, needs, width if box.kind == "row" else height), strict=True):
        if box.kind == "row":
            groups += place(child, x, y, share, height, sizes)
            x += share + box.gap
        else:
            groups += place(child, x, y, width, share, sizes)
            y += share + box.gap
    return groups


def arrange(name: str, workflow: dict[str, Any], sizes: Sizes) -> float:
    """Place the nodes of a template and choose its first view; returns the scale of that view."""
    box = bound(LAYOUTS[name], workflow["nodes"])
    width, height = needed(box, sizes)
    groups = place(box, 0, 0, width, height, sizes)
    workflow["groups"] = [{"id": number, **one} for number, one in enumerate(groups, 1)]
    left, top, wide, high = VIEW
    scale = int(100 * min(LARGEST, wide / width, high / height)) / 100
    offset = [round((left + (wide - width * scale) / 2) / scale), round((top + (high - height * scale) / 2) / scale)]
    workflow["extra"]["ds"] = {"scale": scale, "offset": offset}
    return scale


def text_of(workflow: dict[str, Any]) -> str:
    """The file's text: lists of numbers and flat objects of slots on one line, as a diff is best read."""
    text = json.dumps(workflow, indent=2, ensure_ascii=False)
    flat = re.compile(r"\[\s*((?:-?[\d.]+|null|\"[A-Z_]+\")(?:,\s*(?:-?[\d.]+|null|\"[A-Z_]+\"))*)\s*\]")
    text = flat.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
    slot = re.compile(r"\{\s*(\"(?:name|link|type)\": [^{}]*?)\s*\}")
    text = slot.sub(lambda found: "{" + re.sub(r"\s*\n\s*", " ", found[1]) + "}", text)
    return text + "\n"


def main() -> None:
    """Lay out the templates that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(LAYOUTS))
    names = parser.parse_args().names
    templates = {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    sizes = {name: {node["id"]: _usual(node) for node in templates[name]["nodes"]} for name in names}
    sizes = in_all_editors(templates, sizes)
    for name, workflow in templates.items():
        scale = arrange(name, workflow, sizes[name])
        (FOLDER / f"{name}.json").write_text(text_of(workflow), encoding="utf-8")
        print(f"{name}: opens at {scale:.2f}")


def _usual(node: dict[str, Any]) -> tuple[float, float]:
    return WIDTHS.get(node["type"], USUAL_WIDTH), HEIGHTS.get(node["type"], TITLE)


if __name__ == "__main__":
    main()
