"""The table of errors in docs/models.md says what the recorded runs of the authors' code allow, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sf_core
from sf_core.files.published_models import model_by_name
from tests.families import CASES

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
LIMIT = 5e-6  # tests hold each recorded run to it
# the recorded runs of each row with a number; () are those of tests/parity and of tests/model/test_longlive2.py
RECORDED: dict[str, tuple[str, ...]] = {
    "Self Forcing (DMD, SiD, GAN)": (),
    "Causal Forcing, long video": ("rolling_4",),
    "LongLive": ("longlive_chunk", "longlive_switch", "longlive_switch_nosink"),
    "LongLive, infinite attention": ("longlive_infinity",),
    "SGF": ("sgf_chunk", "sgf_frame"),
    "SGF+": ("sgfplus_chunk", "sgfplus_frame", "sgfplus_i2v"),
    "Infinite-Forcing": ("infinite_chunk",),
    "flashdreams": ("sink5_window7_rerope",),
    "Reward Forcing": ("reward_chunk",),
    "Causal-rCM": ("rcm_c1_step2", "rcm_c1_step2_noisyctx", "rcm_c3_step4"),
    "Rolling Forcing": ("rolling_5",),
    "Krea Realtime 14B": ("krea_t2v", "krea_prompt", "krea_start", "krea_v2v"),
    "MemFlow": ("memflow",),
    "LongLive 2": (),
}


def rows(heading: str) -> list[list[str]]:
    table = PAGE.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


ERRORS = {row[0]: row[3] for row in rows("model | files | licence | error | what differs")}


def test_a_number_stands_where_a_run_is_recorded_and_nowhere_else() -> None:
    assert {model for model, error in ERRORS.items() if re.match(r"\d", error)} == RECORDED.keys()
    assert sorted(case for cases in RECORDED.values() for case in cases) == sorted(CASES)


@pytest.mark.parametrize("model", RECORDED)
def test_a_number_is_one_that_the_tests_hold(model: str) -> None:
    assert 0 < float(ERRORS[model]) <= LIMIT


def test_the_table_of_presets_has_every_preset_with_its_settings() -> None:
    table = {row[0]: row[1:4] for row in rows("preset | chunk | window | sink | timesteps | shift")}
    names = {name for name in sf_core.presets() if not name.startswith("Causal-rCM")}
    assert table.keys() == names
    for name, numbers in table.items():
        config = model_by_name(name).config
        assert config is not None
        assert [int(n) for n in numbers] == [config.chunk_frames, config.window_frames, config.sink_frames], name
