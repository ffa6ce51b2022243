"""locales/zh/translated_from.json: the English that each Chinese text was translated from, as digests.

When an English text changes, a test names the Chinese one to look at. `python -m tools.assets.translations` lists those
that wait; with names, such as ``help/SFTrain``, it records that they were looked at.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORD = Path("locales", "zh", "translated_from.json")


def english_texts(root: Path = ROOT) -> dict[str, str]:
    """Return the digest of each English text by its name: pages of help, nodes, and groups of the editor's texts."""
    pages = {f"help/{page.stem}": page.read_text(encoding="utf-8") for page in sorted(root.glob("js/docs/*.md"))}
    nodes = _named("nodeDefs", _locale(root, "nodeDefs"))
    groups = _named("main", _locale(root, "main")["selfForcing"])
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in {**pages, **nodes, **groups}.items()}


def message_templates(root: Path = ROOT) -> set[str]:
    """Return the English templates of all messages of the server; see `sf_core.message`.

    Raises:
        ValueError: A template is not written out where its message is made.
    """
    templates = set[str]()
    for path in sorted((*root.glob("sf_core/**/*.py"), *root.glob("nodes/**/*.py"))):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in ("Message", "Sentence"):
                continue
            template = call.args[0] if call.args else None
            if not isinstance(template, ast.Constant) or not isinstance(template.value, str):
                raise ValueError(f"{path}, line {call.lineno}: write the template of this message out")
            templates.add(template.value)
    return templates


def _locale(root: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "locales" / "en" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _named(kind: str, texts: dict[str, Any]) -> dict[str, str]:
    return {f"{kind}/{name}": json.dumps(text, ensure_ascii=False, sort_keys=True) for name, text in texts.items()}


def recorded(root: Path = ROOT) -> dict[str, str]:
    """Return the digests of the texts as they were translated."""
    content: dict[str, str] = json.loads((root / RECORD).read_text(encoding="utf-8"))
    return content


def chinese_of(name: str) -> str:
    """Return the file that translates the text called ``name``."""
    kind, _, text = name.partition("/")
    return f"js/docs/{text}/zh.md" if kind == "help" else f"locales/zh/{kind}.json"


def waiting(root: Path = ROOT) -> list[str]:
    """Return the names of the texts that changed, came or went since they were translated."""
    now, then = english_texts(root), recorded(root)
    return sorted(name for name in {*now, *then} if now.get(name) != then.get(name))


def look_at(names: list[str], root: Path = ROOT) -> None:
    """Record that the translations of ``names`` are those of today's English. Raises ValueError for another name."""
    to_look_at = waiting(root)
    if strangers := sorted(set(names) - set(to_look_at)):
        raise ValueError(f"{', '.join(strangers)} waits for no look; those that do: {', '.join(to_look_at) or 'none'}")
    now = english_texts(root)
    record = {name: digest for name, digest in recorded(root).items() if name not in names}
    record |= {name: now[name] for name in names if name in now}
    (root / RECORD).write_text(json.dumps(dict(sorted(record.items())), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    look_at(sys.argv[1:])
    print("\n".join(f"{name}: look at {chinese_of(name)}" for name in waiting()) or "all translations are up to date")
