"""Each node has its help, its picture and its words in each language, without a server to ask."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tools.assets.help_pages import english_pages
from tools.assets.translations import chinese_of, look_at, recorded, waiting

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "js" / "docs"
LANGUAGES = ("en", "zh")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SYNTAX_OF_MESSAGES = re.compile(r"[{}|@$%]")  # the editor reads these in a translation as more than themselves


def schemas() -> dict[str, dict[str, Any]]:
    """Node id -> its inputs and its number of outputs, as nodes/*.py say."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            said = {word.arg: word.value for word in call.keywords}
            if isinstance(name := said.get("node_id"), ast.Constant) and "inputs" in said:
                outputs = said.get("outputs", ast.List([]))
                assert isinstance(outputs, ast.List)
                found[str(name.value)] = {"inputs": input_names(said["inputs"]), "outputs": len(outputs.elts)}
    return found


def input_names(inputs: ast.expr) -> list[str]:
    calls = [one for one in ast.walk(inputs) if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute)]
    named = [one for one in calls if isinstance(one.func, ast.Attribute) and one.func.attr == "Input"]
    first = [one.args[0] for one in named if one.args]
    return [str(one.value) for one in first if isinstance(one, ast.Constant)] + own_inputs(inputs)


def own_inputs(inputs: ast.expr) -> list[str]:
    """Those that a function such as ``_fps_input()`` gives."""
    calls = (one.func.id for one in ast.walk(inputs) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name))
    return [name.strip("_").removesuffix("_input") for name in calls if name.endswith("_input")]


SCHEMAS = schemas()
NODES = pytest.mark.parametrize("node", SCHEMAS)


def locale(language: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    return content


def test_the_nodes_are_found() -> None:
    assert {"SFSession", "SFStreamVideo", "SFRolloutSettings"} <= set(SCHEMAS)
    assert {"session", "vae", "seconds", "fps"} <= set(SCHEMAS["SFStreamVideo"]["inputs"])
    assert "preset" in SCHEMAS["SFRolloutSettings"]["inputs"]


def pages(node: str) -> list[str]:
    """Return the texts of a node's pages: for any language, English, and those that are translated."""
    return [path.read_text(encoding="utf-8") for path in (DOCS / f"{node}.md", *sorted((DOCS / node).glob("*.md")))]


def test_english_pages_are_where_every_editor_asks_first() -> None:
    """Else its log has an error for each page that is opened; and they are the pages of all other languages."""
    copies = english_pages()
    assert len(copies) == len(SCHEMAS)
    for path, content in copies.items():
        assert path.is_file(), f"{path}: python -m tools.assets.help_pages writes it"
        assert path.read_bytes() == content, f"{path}: python -m tools.assets.help_pages writes it anew"


@NODES
def test_a_page_names_every_input(node: str) -> None:
    for page in pages(node):
        check_page(node, page)


def check_page(node: str, page: str) -> None:
    missing = [name for name in SCHEMAS[node]["inputs"] if f"| `{name}` |" not in page]
    assert missing == []
    assert page.startswith("# ")
    if not CHINESE.search(page):
        assert "\n## How it behaves" in page
        assert "\n## If it fails" in page
    assert page.count("\n## ") >= 2


@NODES
def test_a_chinese_page_has_what_the_english_one_has(node: str) -> None:
    english = (DOCS / f"{node}.md").read_text(encoding="utf-8")
    chinese = (DOCS / node / "zh.md").read_text(encoding="utf-8")
    assert outline(chinese) == outline(english)
    title = chinese.partition("\n")[0].removeprefix("# ")
    assert title == locale("zh")[node]["display_name"]
    outputs = [entry["name"] for entry in locale("zh")[node]["outputs"].values()]
    assert [name for name in outputs if f"\n| {name} |" not in chinese] == []
    sentences = [line for line in chinese.splitlines() if line.startswith("- ")]
    assert [line for line in sentences if not CHINESE.search(line)] == []


def outline(page: str) -> list[tuple[str, int]]:
    """The kinds of a page's lines: headings, points, tables with their rows, pictures, blocks of code."""
    kinds = [re.match(r"##? |- |\||!\[|```", line) for line in page.splitlines()]
    named = [kind.group() for kind in kinds if kind]
    return [(kind, named.count(kind)) for kind in dict.fromkeys(named)]


def test_a_changed_english_text_has_its_chinese_one_looked_at() -> None:
    hint = "look at the translation, then: python -m tools.assets.translations NAME"
    assert [f"{name}: {chinese_of(name)}" for name in waiting()] == [], hint


def test_a_look_is_recorded_for_the_texts_that_changed_alone(tmp_path: Path) -> None:
    for name in ("locales", "js/docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    page = tmp_path / "js" / "docs" / "SFTrain.md"
    page.write_text(page.read_text(encoding="utf-8") + "More.\n", encoding="utf-8")
    (tmp_path / "js" / "docs" / "SFRewind.md").unlink()
    assert waiting(tmp_path) == ["help/SFRewind", "help/SFTrain"]
    with pytest.raises(
        ValueError, match=r"help/SFSession waits for no look; those that do: help/SFRewind, help/SFTrain"
    ):
        look_at(["help/SFSession"], tmp_path)
    look_at(["help/SFTrain"], tmp_path)
    assert waiting(tmp_path) == ["help/SFRewind"]
    look_at(["help/SFRewind"], tmp_path)
    assert set(recorded()) - set(recorded(tmp_path)) == {"help/SFRewind"}


@NODES
def test_a_page_shows_the_node(node: str) -> None:
    for page in pages(node):
        pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
        # relative to docs/, also in its folders: the folder of the pack may have any name
        assert pictures[0] == f"pictures/{node}.webp"
        assert pictures[1:] in ([], [f"pictures/{node}_live.webp"])
        for path in (DOCS / name for name in pictures):
            with Image.open(path) as image:
                image.verify()


def test_no_page_or_picture_is_of_a_node_that_is_gone() -> None:
    assert {path.stem for path in DOCS.glob("*.md")} == set(SCHEMAS)
    translated = [path.relative_to(DOCS) for path in DOCS.glob("*/*.md")]
    assert {path.parts[0] for path in translated} == set(SCHEMAS)
    assert {path.stem for path in translated} <= set(LANGUAGES)
    assert {path.stem.removesuffix("_live") for path in (DOCS / "pictures").iterdir()} == set(SCHEMAS)


@pytest.mark.parametrize("language", LANGUAGES)
@NODES
def test_every_word_is_translated(node: str, language: str) -> None:
    texts = locale(language)[node]
    assert texts["display_name"]
    assert texts["description"]
    assert sorted(texts.get("inputs", {})) == sorted(SCHEMAS[node]["inputs"])
    assert list(texts["outputs"]) == [str(number) for number in range(SCHEMAS[node]["outputs"])]
    for entry in (*texts.get("inputs", {}).values(), *texts["outputs"].values()):
        assert entry["name"]
        assert entry["tooltip"]
        assert not SYNTAX_OF_MESSAGES.search(entry["name"] + entry["tooltip"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_the_nodes_that_are_there(language: str) -> None:
    assert set(locale(language)) == set(SCHEMAS)


def test_every_language_file_is_json() -> None:
    files = sorted((ROOT / "locales").rglob("*.json"))
    assert files
    for path in files:
        json.loads(path.read_text(encoding="utf-8"))
