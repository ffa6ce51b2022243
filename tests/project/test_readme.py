"""Facts that README.md and docs/*.md state about files, commands, nodes, models and messages."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sf_core import preset, presets
from sf_core.cli.parser import build_parser
from sf_core.files.published_models import PUBLISHED_MODELS, model_by_words

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md", ROOT / "CHANGELOG.md"]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))

LINK = re.compile(r"(?:\]\(|src=\")([^)\s#\"]*)(?:#([^)\s\"]*))?[)\"]")
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
FOLDERS = {"benchmarks", "docs", "js", "locales", "nodes", "sf_core", "subgraphs", "tests", "tools", "workflows"}
TOP_FILE = re.compile(r"[\w-]+\.(txt|toml)")
GAP = "\0"  # a value in an f-string


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def section(page: Path, heading: str) -> str:
    return text_of(page).split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table_rows(text: str) -> list[list[str]]:
    """Cells of the Markdown tables in ``text``, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = {number for number, line in enumerate(lines) if set(line) <= set("|- ")}
    skipped = rules | {number - 1 for number in rules}
    rows = (line for number, line in enumerate(lines) if number not in skipped)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def code_lines(page: Path) -> list[str]:
    """Lines of shell examples, continued lines joined, and inline code."""
    text = text_of(page)
    blocks = [body for language, body in FENCE.findall(text) if language in ("bash", "bat")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in [*lines, *CODE.findall(FENCE.sub("", text))] if line.strip()]


def anchors(page: Path) -> set[str]:
    """Fragments that GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


# Links and paths -----------------------------------------------------------------------------------------------------


@EACH_PAGE
def test_links_and_pictures_exist(page: Path) -> None:
    for target, fragment in LINK.findall(text_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name} links to {target}, which does not exist"
        assert not fragment or fragment in anchors(path), f"{page.name}: {target} has no heading #{fragment}"


@EACH_PAGE
def test_named_files_and_folders_exist(page: Path) -> None:
    for word in {word for line in code_lines(page) for word in line.split()}:
        inside = "/" in word and word.split("/")[0] in FOLDERS and "<" not in word
        if inside or TOP_FILE.fullmatch(word):
            assert (ROOT / word.partition("=")[2] if "=" in word else ROOT / word).exists(), f"{page.name} names {word}"


def test_model_links_are_those_of_the_workflows() -> None:
    notes = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflows").glob("*.json"))
    links = re.findall(r"\((https://huggingface\.co/[^)\s]+)\)", text_of(README))
    assert links
    assert [link for link in links if link not in notes] == []


# Commands ------------------------------------------------------------------------------------------------------------


def subparsers(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    return next(dict(action.choices) for action in parser._actions if isinstance(action, _SubParsersAction))


def core_commands(page: Path) -> Iterator[list[str]]:
    """Arguments of each full ``sf_core`` command of a page; ``sf`` is the alias that command-line.md defines."""
    for line in code_lines(page):
        found = re.search(r"-m sf_core (.+)$|^sf (.+)$", line.partition("  #")[0])
        if found and "..." not in line:
            yield shlex.split(found[1] or found[2])


@EACH_PAGE
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for line in code_lines(page):
        if found := re.match(r"make ([a-z][a-z-]*)", line):
            assert found[1] in targets, f"{page.name}: make {found[1]} is no target"


@EACH_PAGE
def test_core_commands_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in core_commands(page):
        if "--help" in arguments or (len(arguments) == 1 and arguments[0] in subparsers(build_parser())):
            continue
        try:
            build_parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: {' '.join(arguments)}: {capsys.readouterr().err}")


def test_the_pages_hold_core_commands() -> None:
    assert len([command for page in PAGES for command in core_commands(page)]) > 15


def test_options_of_the_command_line_exist() -> None:
    known = {option for one in subparsers(build_parser()).values() for option in one._option_string_actions}
    named = {
        word for line in code_lines(ROOT / "docs" / "command-line.md") for word in re.findall(r"(--[a-z-]+)", line)
    }
    assert named - known == {"--standalone", "--nproc-per-node"}  # of torchrun


@EACH_PAGE
def test_modules_that_are_run_exist(page: Path) -> None:
    for module in re.findall(r"-m ((?:sf_core|tools|benchmarks)[\w.]*)", text_of(page)):
        assert importlib.util.find_spec(module.rstrip(".")), f"{page.name} runs {module}"


def test_the_registry_name_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"comfy node registry-install {project['name']}`" in text_of(README)
    assert f"git clone {project['urls']['Repository']}\n" in text_of(README)


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [body for language, body in FENCE.findall(text_of(ROOT / "docs" / "python.md")) if language == "python"]
    program = "\n".join(body for body in blocks if "training" not in body)
    assert "sf_core.stream(" in program
    monkeypatch.chdir(tmp_path)  # they write files
    exec(program, {})


# Models and hardware -------------------------------------------------------------------------------------------------


def test_each_model_file_gets_the_preset_of_its_row() -> None:
    rows = [row for row in table_rows(section(README, "Models")) if len(row) == 4]
    for file, _, folder, name_of_preset in rows:
        for name in CODE.findall(file):
            if name == "lora.pt":  # merged into the file before it
                continue
            member = model_by_words(f"{folder.strip('`')}/{name}")
            assert member is not None, name
            assert member.name == name_of_preset
    assert {row[3] for row in rows} <= {member.name for member in PUBLISHED_MODELS if member.config is not None}


def test_the_settings_of_presets_are_those_of_the_code() -> None:
    rows = {row[0]: row[1:] for row in table_rows(section(ROOT / "docs" / "models.md", "How settings are chosen"))}
    configs = {name: preset(name) for name in presets() if not name.startswith("Causal-rCM")}
    assert rows == {
        name: [
            str(config.chunk_frames),
            str(config.window_frames),
            str(config.sink_frames),
            ", ".join(
                f"{step:g}" for step in (config.timesteps(0) if config.solver != "renoise" else config.denoising_steps)
            ),
            f"{config.shift:g}",
        ]
        for name, config in configs.items()
    }


def test_every_preset_is_a_row_of_the_table_of_models() -> None:
    names = " ".join(
        row[0] for row in table_rows(section(ROOT / "docs" / "models.md", "All models, and how exact they are"))
    )
    for name in presets():
        family = name.replace(", web demo (shift 8)", "").replace("++", "").split(", c")[0].split(", frame-wise")[0]
        assert family.split(",")[0] in names, name


def test_predicted_hardware_is_what_the_script_prints() -> None:
    script = [sys.executable, "-m", "benchmarks.vram"]
    printed = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    page = text_of(ROOT / "docs" / "hardware.md").splitlines()
    assert [line for line in printed if line not in page] == []
    predicted = section(README, "Hardware").split("**Predicted**")[1]
    setups = [[*row[:4], f"{row[8]} GiB", row[9]] for row in table_rows("\n".join(printed))]
    assert table_rows(predicted)
    assert [row for row in table_rows(predicted) if row not in setups] == []


def test_measured_hardware_is_what_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "realtime_cuda.json").read_text(encoding="utf-8"))
    row = next(line for line in section(README, "Hardware").splitlines() if result["settings"]["gpu"] in line)
    rows = result["rows"]
    assert f"| {rows['streamed']['median']:.1f} | {rows['to the first frames, new video']['median']:.2f} s |" in row


# Nodes and workflows -------------------------------------------------------------------------------------------------


def test_the_node_table_has_every_node() -> None:
    names = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    rows = [re.fullmatch(r"\[(.+)\]\(js/docs/(\w+)\.md\)", row[0]) for row in table_rows(section(README, "Nodes"))]
    assert all(rows)
    shown = {row[2]: row[1] for row in rows if row}
    assert shown == {node: texts["display_name"] for node, texts in names.items()}


def test_the_workflow_table_has_every_workflow() -> None:
    named = re.findall(r"workflows/(\w+)\.jpg.*<b>(\w+)</b>", section(README, "Workflows"))
    assert all(picture == name for picture, name in named)
    assert sorted(name for _, name in named) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


@EACH_PAGE
def test_workflows_in_italics_exist(page: Path) -> None:
    for name in re.findall(r"(?<!\*)\*([a-z]+(?:_[a-z]+)+)\*(?!\*)", text_of(page)):
        assert (ROOT / "workflows" / f"{name}.json").is_file(), f"{page.name} names the workflow {name}"


# Messages ------------------------------------------------------------------------------------------------------------


@cache
def texts_in_code() -> str:
    """Every text in the Python code, values of f-strings as GAP, and the shell scripts."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tools").glob("*.sh")]
    for folder in ("nodes", "sf_core", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
                    texts.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def quoted_messages(page: Path, text: str) -> list[str]:
    cells = [row[0] for row in table_rows(text) if row[0].startswith("`")]
    assert cells, page
    return [CODE.findall(cell)[0] for cell in cells]


@pytest.mark.parametrize(
    "message",
    sorted(
        {
            *quoted_messages(README, section(README, "Troubleshooting")),
            *quoted_messages(TROUBLESHOOTING, text_of(TROUBLESHOOTING)),
        }
    ),
)
def test_a_quoted_message_stands_in_the_code(message: str) -> None:
    """`…` stands for what the code fills in."""
    pattern = r"[^\n]{1,80}?".join(re.escape(part) for part in message.split("…"))
    assert re.search(pattern, texts_in_code()), f"no code says {message!r}"


def test_the_readme_has_ten_errors() -> None:
    assert len(table_rows(section(README, "Troubleshooting"))) == 10
