"""What each server hands out for the editor's help, tooltips and languages."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest

from tools.assets.locale import ENGLISH, english
from tools.comfyui.checkout import ROOT
from tools.comfyui.server import PACK, Server

DOCS = ROOT / "js" / "docs"
NODES = sorted(path.stem for path in DOCS.glob("*.md"))
LONGEST_TOOLTIP = 200


def fetch(server: Server, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.url + path, timeout=30) as answer:
        content: bytes = answer.read()
        return content


def ours(server: Server) -> dict[str, Any]:
    module = f"custom_nodes.{PACK}"
    return {name: info for name, info in server.object_info().items() if info["python_module"] == module}


def test_every_node_has_a_page(server: Server) -> None:
    assert sorted(ours(server)) == NODES


def test_pages_and_pictures_are_served(server: Server) -> None:
    for node in NODES:
        for name in (f"{node}.md", f"{node}/en.md"):
            assert fetch(server, f"/extensions/{PACK}/docs/{name}") == (DOCS / name).read_bytes()
        picture = fetch(server, f"/extensions/{PACK}/docs/pictures/{node}.webp")
        assert picture == (DOCS / "pictures" / f"{node}.webp").read_bytes()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(server, f"/extensions/{PACK}/docs/SFNoSuchNode.md")


def test_every_input_says_in_a_sentence_what_it_is(server: Server) -> None:
    for node, info in ours(server).items():
        for group in ("required", "optional"):
            for name, (_, options) in info["input"].get(group, {}).items():
                tooltip = options.get("tooltip", "")
                assert re.fullmatch(r"[A-Z'\d].*\.", tooltip), (node, name, tooltip)
                assert len(tooltip) <= LONGEST_TOOLTIP, (node, name)
        assert all(info["output_tooltips"]), node
        assert info["description"].endswith("."), node


def test_nodes_are_found_by_other_words(server: Server) -> None:
    """On the versions that know of it."""
    known = "search_aliases" in server.object_info()["EmptyImage"]
    for node, info in ours(server).items():
        assert bool(info.get("search_aliases")) == known, node


def test_the_pages_are_true_to_the_schema(server: Server) -> None:
    for node, info in ours(server).items():
        page = (DOCS / f"{node}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {info['display_name']}\n")
        for name in info["output_name"]:
            assert f"\n| {name} |" in page, (node, name)
        for name, (kind, options) in info["input"].get("required", {}).items():
            default = options.get("default")
            if kind in ("INT", "FLOAT") or (kind == "COMBO" and default):
                row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
                shown = f"{default:g}" if isinstance(default, float) else str(default)
                assert row.split("|")[3].strip().strip("`") == shown, (node, name)


def test_english_is_what_the_schemas_say(server: Server) -> None:
    said = json.loads(ENGLISH.read_text(encoding="utf-8"))
    assert said == english(server.object_info()), "python -m tools.assets.locale writes it anew"


def test_the_editor_is_given_each_language(server: Server) -> None:
    languages = server.get("/api/i18n")
    for language in ("en", "zh"):
        told = languages[language]["nodeDefs"]
        assert set(NODES) <= set(told)
        assert languages[language]["selfForcing"]["player"]["play"]  # texts of js/
    assert languages["zh"]["nodeDefs"]["SFSession"]["inputs"]["width"]["name"] == "宽度"
