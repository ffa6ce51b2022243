"""The study of exposure bias runs from a training to its report, and goes on where it was killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sf_core.training import Trainer
from tests.processes import ROOT
from tests.training.recipes import CAUSAL, SELF_FORCING, TEACHER, VAE, WORLD, write

pytestmark = pytest.mark.slow


def few(stage: str) -> str:
    """The same stage in a few steps."""
    lines = stage.splitlines()
    return "\n".join("steps = 3" if line.startswith("steps") else line for line in lines) + "\n"


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; the recipe lies beside it."""
    folder = tmp_path_factory.mktemp("study")
    recipe = write(folder, WORLD + "".join(map(few, (VAE, TEACHER, CAUSAL, SELF_FORCING))))
    Trainer(recipe, folder / "run").run()
    return folder / "run"


def study(training: Path, *more: str) -> subprocess.CompletedProcess[str]:
    folder = training.parent
    paths = {"base": training, "out": folder / "out", "docs": folder / "docs", "recipe": folder / "recipe.toml"}
    options = {**paths, "seeds": 1, "prompts": 2, "steps": 2}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "benchmarks.exposure_bias", *arguments, *more]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_it_trains_scores_and_reports_and_keeps_what_people_wrote(training: Path) -> None:
    docs = training.parent / "docs"
    docs.mkdir()
    begin, end = "<!-- made by benchmarks/exposure_bias.py -->", "<!-- until here -->"
    (docs / "exposure-bias.md").write_text(f"What it is.\n\n{begin}\nold\n{end}\n\nWhat it means.\n")
    done = study(training)
    assert done.returncode == 0, done.stderr[-2000:]
    text = (docs / "exposure-bias.md").read_text()
    assert text.startswith("What it is.\n")
    assert text.endswith("What it means.\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "1x" not in line]
    assert len(rows) == 6 * 5  # six measures of five models
    assert sum("teacher (bidirectional)" in row for row in rows) == 6
    with Image.open(docs / "exposure-bias" / "lengths.webp") as plot:
        assert plot.width > 500
    with Image.open(docs / "exposure-bias" / "rollouts-0.webp") as sheet:
        assert sheet.size == (16 * 34, 2 * 34)  # the middle and the end of eight lengths of two videos

    # what is done is not done again, and what is missing is
    scores = {path: path.stat().st_mtime_ns for path in (training.parent / "out").glob("*/scores.json")}
    lost = training.parent / "out" / "rollouts-0" / "scores.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    assert study(training).returncode == 0
    assert json.loads(lost.read_text()) == before
    again = {path: path.stat().st_mtime_ns for path in scores}
    assert [path for path in scores if scores[path] != again[path]] == [lost]


def test_it_says_what_has_to_be_there_first(training: Path, tmp_path: Path) -> None:
    done = study(training, f"--base={tmp_path}")
    assert done.returncode == 2
    assert "has no vae.safetensors: run `make train` first" in done.stderr
