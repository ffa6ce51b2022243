"""Each message of the server has its translation, of the same values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Formatter

import pytest

from tools.assets.translations import message_templates

ROOT = Path(__file__).parents[2]
CHINESE = re.compile(r"[\u4e00-\u9fff]")
WORDS = re.compile(r"[A-Za-z]")
IN_BRACES = re.compile(r"\{\w+\}")
SAME_IN_CHINESE = {"VAE {size}", "self forcing"}
TRANSLATIONS: dict[str, str] = json.loads((ROOT / "locales" / "zh" / "messages.json").read_text(encoding="utf-8"))


TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
NOTES: dict[str, str] = json.loads((ROOT / "locales" / "zh" / "main.json").read_text(encoding="utf-8"))[
    "selfForcingNotes"
]


def note_of(template: Path) -> str:
    nodes = json.loads(template.read_text(encoding="utf-8"))["nodes"]
    (note,) = [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
    assert isinstance(note, str)
    return note


def digest(text: str) -> str:
    """FNV-1a, 32 bits, as js/lib/i18n.js has it."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{value:08x}"


def values_in(template: str) -> list[str]:
    return sorted({name for _, name, _, _ in Formatter().parse(template) if name})


def test_every_message_of_the_server_is_translated_and_no_translation_is_left_over() -> None:
    templates = message_templates() - {"", "{text}"}
    assert len(templates) > 80
    assert sorted(templates ^ set(TRANSLATIONS)) == []


@pytest.mark.parametrize("template", TRANSLATIONS)
def test_a_translation_has_the_values_and_marks_of_its_english(template: str) -> None:
    translation = TRANSLATIONS[template]
    assert values_in(translation) == values_in(template)
    assert translation.count(" · ") == template.count(" · ")  # by which js/player/messages.js knows a line of facts
    if WORDS.search(IN_BRACES.sub("", template)) and template not in SAME_IN_CHINESE:
        assert CHINESE.search(translation)


def test_a_message_whose_template_is_made_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "new.py").write_text("def f(t: str) -> str:\n    return Message(t)\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"new\.py, line 2: write the template of this message out"):
        message_templates(tmp_path)


def test_every_note_of_a_template_is_translated_and_no_translation_is_left_over() -> None:
    assert sorted(NOTES) == sorted(digest(note_of(template)) for template in TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_translated_note_has_the_links_names_of_files_and_sizes_of_its_english(template: Path) -> None:
    note = note_of(template)
    translation = NOTES[digest(note)]
    for kept in (r"\]\((\S+?)\)", r"`[^`]+`", r"[\d.]+ Gi?B", r"^#+ "):
        assert sorted(set(re.findall(kept, translation, re.M))) == sorted(set(re.findall(kept, note, re.M))), kept
    assert len(CHINESE.findall(translation)) > 60
