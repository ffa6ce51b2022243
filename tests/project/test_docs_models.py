"""The table of errors in docs/models.md says what the recorded runs of the authors' code allow, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sf_core
from sf_core.files.published_models import model_by_name
from tests import longlive2
from tests.families import CASES, RECORDED, ours_and_theirs, with_errors
from tests.helpers import ROLLOUTS, relative

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
LIMIT = 5e-6  # tests hold each recorded run to it


def rows(heading: str) -> list[list[str]]:
    table = PAGE.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


ERRORS = {row[0]: row[3] for row in rows("model | files | licence | error | what differs")}


def test_a_number_stands_where_a_run_is_recorded_and_nowhere_else() -> None:
    assert {model for model, error in ERRORS.items() if re.match(r"\d", error)} == RECORDED.keys()
    shown = [case for cases in RECORDED.values() for case in cases]
    assert sorted(shown) == sorted([*CASES, *longlive2.CASES, *ROLLOUTS])


@pytest.mark.parametrize("model", RECORDED)
def test_a_number_is_one_that_the_tests_hold(model: str) -> None:
    assert 0 < float(ERRORS[model]) <= LIMIT


@pytest.mark.parametrize("model", ["LongLive 2", "Infinite-Forcing"])
def test_the_command_writes_what_it_measures_into_the_table(model: str) -> None:
    errors = [relative(*ours_and_theirs(case)) for case in RECORDED[model]]
    written = with_errors(PAGE, {model: max(errors)})
    changed = [(old, new) for old, new in zip(PAGE.splitlines(), written.splitlines(), strict=True) if old != new]
    assert all(new.startswith(f"| {model} |") for _, new in changed)
    assert float(ERRORS[model]) / 4 < max(errors) < float(ERRORS[model]) * 4, "the last digits differ between machines"
    assert f"| {model} | " in with_errors(PAGE, {model: 4e-3}).split("| 4e-3 |")[0].splitlines()[-1]


def test_the_table_of_presets_has_every_preset_with_its_settings() -> None:
    table = {row[0]: row[1:4] for row in rows("preset | chunk | window | sink | timesteps | shift")}
    names = {name for name in sf_core.presets() if not name.startswith("Causal-rCM")}
    assert table.keys() == names
    for name, numbers in table.items():
        config = model_by_name(name).config
        assert config is not None
        assert [int(n) for n in numbers] == [config.chunk_frames, config.window_frames, config.sink_frames], name
