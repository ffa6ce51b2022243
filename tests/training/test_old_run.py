"""A training that commit 20d3907 left unfinished is still resumed, and ends with the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sf_core.__main__ import main
from tests.helpers import relative

pytestmark = pytest.mark.slow

OLD = Path(__file__).parents[1] / "written_by_20d3907"
TOLERANCE = 1e-3  # of a change of weights; Adam makes much of the last bits of small gradients


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the recipe's files and, in ``run``, the stopped run."""
    shutil.copy(OLD / "model.safetensors", tmp_path)
    for name in ("recipe.toml", "prompts.txt", "text.safetensors"):
        shutil.copy(OLD / "training" / name, tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("state.safetensors", "metrics.jsonl", "model.lora.safetensors", "critic.lora.safetensors"):
        shutil.copy(OLD / "training" / name, tmp_path / "run")
    monkeypatch.chdir(tmp_path)  # the recipe names its files relative to where training is started
    return tmp_path


def train(*arguments: str) -> int:
    return main(["train", "--recipe", "recipe.toml", "--out", "run", "--threads", "1", *arguments])


def test_info_says_where_an_old_training_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(OLD / "training" / "state.safetensors")]) == 0
    assert "1-self-forcing, step 2 of 4" in capsys.readouterr().out


def test_an_old_training_is_resumed_to_the_same_weights(folder: Path) -> None:
    end = load_file(OLD / "training" / "at_the_end.safetensors")
    assert train("--resume") == 0
    for network in ("model", "critic"):
        stopped = load_file(OLD / "training" / f"{network}.lora.safetensors")
        found = load_file(folder / "run" / f"{network}.lora.safetensors")
        assert found.keys() == stopped.keys()
        expected = {name: end[f"{network}.{name}"] - weight for name, weight in stopped.items()}
        moved = [name for name, change in expected.items() if float(change.norm())]
        assert len(moved) > len(expected) // 4
        for name in moved:
            assert relative(found[name] - stopped[name], expected[name]) < TOLERANCE, f"{network}: {name}"
    steps = [json.loads(line)["step"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_an_old_training_is_not_resumed_by_another_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("rank = 1", "rank = 2"))
    assert train("--resume") == 1
    assert "lora" in capsys.readouterr().err
