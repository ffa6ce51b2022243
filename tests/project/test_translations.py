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
    assert translation.count(" · ") == template.count(" · ")  # by which js/player/player.js knows a line of facts
    if WORDS.search(IN_BRACES.sub("", template)) and template not in SAME_IN_CHINESE:
        assert CHINESE.search(translation)


def test_a_message_whose_template_is_made_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "new.py").write_text("def f(t: str) -> str:\n    return Message(t)\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"new\.py, line 2: write the template of this message out"):
        message_templates(tmp_path)
