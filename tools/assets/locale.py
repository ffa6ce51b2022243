"""locales/en/nodeDefs.json: the texts of the nodes' schemas, as translators and the editor take them.

`python -m tools.assets.locale` writes it anew after a schema has changed; a test says when that was forgotten.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tools.comfyui.checkout import ROOT, primary
from tools.comfyui.server import PACK, Server

ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"


def english(object_info: dict[str, Any]) -> dict[str, Any]:
    """The pack's part of what the server says of its nodes, as a locale file has it."""
    ours = (name for name, info in object_info.items() if info["python_module"] == f"custom_nodes.{PACK}")
    return {name: _node(object_info[name]) for name in sorted(ours)}


def _node(info: dict[str, Any]) -> dict[str, Any]:
    specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    inputs = {name: _texts(spec[1].get("display_name") or name, spec[1].get("tooltip")) for name, spec in specs.items()}
    tooltips = info.get("output_tooltips") or [None] * len(info["output_name"])
    outputs = {
        str(number): _texts(name, tooltip)
        for number, (name, tooltip) in enumerate(zip(info["output_name"], tooltips, strict=True))
    }
    texts = {"display_name": info["display_name"], "description": info["description"]}
    return {**texts, **({"inputs": inputs} if inputs else {}), "outputs": outputs}


def _texts(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": name, **({"tooltip": tooltip} if tooltip else {})}


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(primary(), Path(base)) as server:
        texts = english(server.object_info())
    ENGLISH.parent.mkdir(parents=True, exist_ok=True)
    ENGLISH.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{ENGLISH}: {len(texts)} nodes")


if __name__ == "__main__":
    main()
