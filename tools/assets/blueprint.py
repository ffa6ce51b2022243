"""The subgraph blueprint *Self Forcing (live)*: `python -m tools.assets.blueprint` makes it from a template.

One node with the model, the prompt and the player: the template live_steering without its note and Save Video. ComfyUI
0.33 lists the files of `subgraphs/` by itself, among the nodes that a user can add; older versions ignore the folder.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from tools.comfyui.checkout import ROOT

from .template_layout import text_of

SOURCE = ROOT / "workflows" / "live_steering.json"
NAME = "Self Forcing (live)"
TARGET = ROOT / "subgraphs" / f"{NAME}.json"
DESCRIPTION = (
    "A video without an end, in one node with its model and prompt. "
    "The player, in which you type new prompts, is inside the subgraph."
)
OUTSIDE = ("MarkdownNote", "SaveVideo")
# [type, widget]: what the node shows, from top to bottom. No editor shows the player itself outside its subgraph.
PREVIEW = "$$sf-preview"  # that js/lib/editor.js offers
SHOWN = (
    *(("SFLoadModel", "model_name"), ("CLIPLoader", "clip_name"), ("VAELoader", "vae_name")),
    *(("CLIPTextEncode", "text"), ("SFSession", "seed"), ("SFStreamVideo", "seconds"), ("SFStreamVideo", PREVIEW)),
)
OUTPUTS = (("VIDEO", "VIDEO"), ("session", "SF_SESSION"))  # of Stream Video: name and type, in the order of its slots
SIZE = [440, 620]


def ident(name: str) -> str:
    """An id that stays the same when the blueprint is made again."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"self-forcing/subgraphs/live/{name}"))


def blueprint(template: dict[str, Any]) -> dict[str, Any]:
    """The workflow of one node that holds the nodes of ``template``."""
    nodes = [node for node in template["nodes"] if node["type"] not in OUTSIDE]
    by_type = {node["type"]: node for node in nodes}
    ids = {node["id"] for node in nodes}
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(keys, link, strict=True)) for link in template["links"] if link[1] in ids and link[3] in ids]
    kept = {link["id"] for link in links}
    right = max(node["pos"][0] + node["size"][0] for node in nodes)
    stream, outputs = by_type["SFStreamVideo"], []
    for node in nodes:
        for slot in node["outputs"]:
            slot["links"] = [link for link in slot["links"] if link in kept]
    for slot, (name, kind) in enumerate(OUTPUTS):
        link = template["last_link_id"] + 1 + slot
        ends = {"origin_id": stream["id"], "origin_slot": slot, "target_id": -20, "target_slot": slot}
        links.append({"id": link, **ends, "type": kind})
        stream["outputs"][slot]["links"].append(link)
        outputs.append({"id": ident(name), "name": name, "type": kind, "linkIds": [link]})
    subgraph = {
        "id": ident("graph"),
        "version": 1,
        "state": {
            "lastGroupId": len(template["groups"]),
            "lastNodeId": template["last_node_id"],
            "lastLinkId": template["last_link_id"] + len(OUTPUTS),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": NAME,
        "inputNode": {"id": -10, "bounding": [300, 30, 120, 60]},
        "outputNode": {"id": -20, "bounding": [right + 80, 500, 120, 80]},
        "inputs": [],
        "outputs": outputs,
        "widgets": [],
        "nodes": nodes,
        "groups": template["groups"],
        "links": links,
        "extra": {},
        "category": "self_forcing",
        "description": DESCRIPTION,
    }
    node = {
        "id": template["last_node_id"] + 1,
        "type": subgraph["id"],
        "pos": [0, 0],
        "size": SIZE,
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [{"name": name, "type": kind, "links": []} for name, kind in OUTPUTS],
        "properties": {
            "proxyWidgets": [[str(by_type[kind]["id"]), widget] for kind, widget in SHOWN],
            "cnr_id": "self-forcing",
            "ver": stream["properties"]["ver"],
        },
        "widgets_values": [],
        "title": NAME,
    }
    return {
        "id": ident("workflow"),
        "revision": 0,
        "last_node_id": node["id"],
        "last_link_id": template["last_link_id"] + len(OUTPUTS),
        "nodes": [node],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [subgraph]},
        "extra": {
            "BlueprintDescription": DESCRIPTION,
            "BlueprintSearchAliases": ["self forcing", "stream", "live video"],
        },
    }


def main() -> None:
    """Write the blueprint."""
    TARGET.parent.mkdir(exist_ok=True)
    content = blueprint(json.loads(SOURCE.read_text(encoding="utf-8")))
    TARGET.write_text(text_of(content), encoding="utf-8")
    print(TARGET)


if __name__ == "__main__":
    main()
