"""The preset of each family plays its recorded run as the authors' own code does; SGF+ from one file with two sets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import sf_core
from tests.families import CASES, FOLDER, MODEL_SIZES, play, recorded, start
from tests.helpers import relative

PRESETS = {
    "infinite_chunk": "Infinite-Forcing",
    "longlive_chunk": "LongLive",
    "longlive_infinity": "LongLive, infinite attention",
    "sgf_chunk": "SGF",
    "sgf_frame": "SGF, frame-wise",
    "reward_chunk": "Reward Forcing",
    "rolling_5": "Rolling Forcing",
    "rolling_4": "Causal Forcing, long video",
    "rcm_c3_step4": "Causal-rCM, c3-3, 4 steps",
    "rcm_c1_step2": "Causal-rCM, c1-1, 2 steps",
    "rcm_c1_step2_noisyctx": "Causal-rCM, c1-1, 2 steps, noisy context",
    "sink5_window7_rerope": "flashdreams",
}


@pytest.mark.parametrize(("case", "name"), PRESETS.items())
def test_a_preset_plays_as_its_authors_code_does(case: str, name: str) -> None:
    assert relative(play(start(case, asdict(sf_core.preset(name))), case).latents, recorded(case)) <= 5e-6


@pytest.mark.parametrize(("case", "name"), [("sgfplus_chunk", "SGF+"), ("sgfplus_frame", "SGF+, frame-wise")])
def test_sgf_plus_plays_from_its_file(case: str, name: str, tmp_path: Path) -> None:
    both = [load_file(FOLDER / f"{part}.safetensors") for part in ("weights", "weights_memory")]
    save_file(
        {f"generator_ema.model.{key}": value for one in both for key, value in one.items()}, tmp_path / "m.safetensors"
    )
    model = sf_core.load_model(tmp_path / "m.safetensors", **{key: CASES[case]["model"][key] for key in MODEL_SIZES})
    session = start(case, asdict(sf_core.preset(name)), model=model)
    assert relative(play(session, case).latents, recorded(case)) <= 5e-6
