"""Node ids and inputs are a contract: what saved graphs and programs say stays valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.comfyui.server import Server

GOLDEN = Path(__file__).parent / "object_info.json"
_LISTS_OF_FILES = {("SFLoadModel", "model_name"), ("SFLoadSession", "file")}
_SPOKEN = ("tooltip", "sf_presets", "sf_fps")  # may change freely; the help's tests look at the first


def contract(info: dict[str, Any]) -> dict[str, Any]:
    """What a saved graph relies on, without what depends on the version or on the files that are there."""
    found: dict[str, Any] = {}
    for name in sorted(node for node in info if node.startswith("SF")):
        node = info[name]
        inputs = {}
        for group in ("required", "optional"):
            for key, (kind, *options) in node["input"].get(group, {}).items():
                facts = {k: v for k, v in (options[0] if options else {}).items() if k not in _SPOKEN and v is not None}
                if (name, key) in _LISTS_OF_FILES:
                    facts.pop("options", None)
                    kind = "COMBO"
                inputs[key] = [group, "COMBO" if isinstance(kind, list) else kind, dict(sorted(facts.items()))]
        found[name] = {
            "display_name": node["display_name"],
            "inputs": inputs,
            "outputs": list(zip(node["output"], node["output_name"], strict=True)),
            "output_node": node["output_node"],
        }
    return json.loads(json.dumps(found))


def test_ids_inputs_and_outputs_are_the_recorded_ones_in_their_order(server: Server) -> None:
    """After an addition, at the end: write what this finds to the file, and look at the difference."""
    found, golden = contract(server.object_info()), json.loads(GOLDEN.read_text())
    assert found.keys() == golden.keys()
    for name, node in golden.items():
        assert found[name] == node
        assert list(found[name]["inputs"]) == list(node["inputs"])  # widgets are saved by their order


def test_the_extension_exports_no_old_style_nodes(server: Server) -> None:
    source = (Path(__file__).parents[2] / "__init__.py").read_text()
    assert "NODE_CLASS_MAPPINGS" not in source
    assert not server.failed_packs()
