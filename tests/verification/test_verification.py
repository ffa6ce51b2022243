"""A machine that plays a model right passes its verification, and one that does not is found out."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sf_core
from sf_core import tiny
from sf_core.__main__ import main
from sf_core.model.attention import BACKENDS
from sf_core.model.cache_pool import CachePool
from sf_core.model.cache_shape import CacheShape
from sf_core.session import next_chunk, sampler
from sf_core.verification import cases as cases_module
from sf_core.verification.cases import FILE, SIZE, Case, case_for, cases, recorded
from sf_core.verification.checks import LIMITS, Check, Host, Promises, check_case, relative_distance

NAMED = {case.name: case for case in cases()}
# what others take each family for; the weakest is Reward Forcing's average
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("SGF", {"sink_position": "clamped", "trained_frames": None}),
    ("SGF+", {"sink_position": "absolute"}),
    ("Rolling Forcing", {"window_frames": 24}),
    ("Causal Forcing, chunk-wise", {"window_frames": 18}),
    ("LongLive", {"sink_position": "clamped"}),
    ("LongLive 2", {"pin_shots": False}),
    ("MemFlow", {"memory_interval": 2}),
    ("Reward Forcing", {"sink_average": None}),
    ("Krea Realtime 14B", {"denoising_steps": (1000, 750, 500, 250)}),
    ("Causal-rCM, c3-3, 4 steps", {"exact_times": False, "denoising_steps": (1000, 750, 500, 250)}),
]


@cache
def model_of(name: str, dtype: torch.dtype = torch.float32) -> sf_core.CausalWan:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        NAMED[name].write_model(path)
        return sf_core.load_model(path, dtype=dtype)


def promises(model: sf_core.CausalWan, name: str = "Reward Forcing") -> dict[str, Check]:
    found = Promises(model, NAMED[name].config, SIZE, torch.float32, Host()).check()
    return {check.name: check for check in found}


def test_every_preset_has_a_recorded_case_in_a_small_file() -> None:
    assert sorted(sf_core.presets()) == sorted(name for case in cases() for name in (case.name, *case.also))
    assert FILE.stat().st_size < 300_000
    for case in cases():
        assert recorded(case).latents.isfinite().all()


@pytest.mark.parametrize("name", NAMED)
def test_a_cpu_gives_the_recorded_numbers_in_float32(name: str) -> None:
    check = check_case(NAMED[name], model_of(name), torch.float32, Host())
    assert check.passed, check
    authors = check.facts["authors_relative_l2"]
    assert authors is None or (isinstance(authors, float) and authors <= 5e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["SGF+", "Causal Forcing, chunk-wise", "LongLive 2"])
def test_half_precision_is_within_its_limit_and_not_taken_for_float32(name: str, dtype: torch.dtype) -> None:
    check = check_case(NAMED[name], model_of(name, dtype), dtype, Host())
    assert check.passed, check
    assert check.facts["relative_l2"] > 20 * LIMITS[torch.float32]  # type: ignore[operator]


@pytest.mark.parametrize(("name", "changes"), WRONG)
def test_another_rule_gives_other_numbers(name: str, changes: dict[str, Any]) -> None:
    """A case that passes with a wrong rule would prove nothing."""
    latents = NAMED[name].play(model_of(name), **changes)
    assert relative_distance(latents, recorded(NAMED[name]).latents) > 50 * LIMITS[torch.float32]


def test_a_case_is_found_by_settings_and_not_by_a_name() -> None:
    assert case_for(sf_core.preset("Self Forcing"), 16, False) == NAMED["Causal Forcing, chunk-wise"]
    assert case_for(sf_core.preset("SGF+"), 16, True) == NAMED["SGF+"]
    assert case_for(sf_core.preset("SGF+"), 16, False) == NAMED["LongLive, infinite attention"]  # one set of weights
    assert case_for(sf_core.preset("LongLive 2"), 16, False) is None
    assert case_for(sf_core.RolloutConfig(shift=6.0), 16, False) is None


@pytest.mark.parametrize("name", ["Reward Forcing", "Rolling Forcing", "Krea Realtime 14B", "Causal-rCM, c1-1, 1 step"])
def test_a_checkpoint_keeps_the_promises_of_a_session(name: str) -> None:
    found = promises(model_of(name), name)
    assert list(found) == ["same seed", "rewind and re-roll", "lost cache", "memory"]
    assert all(check.passed for check in found.values()), found
    assert found["lost cache"].facts["passes"]


def test_arithmetic_that_changes_between_two_calls_is_found() -> None:
    calls = 0

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return BACKENDS["sdpa"](q, k, v) * (1 + 1e-4 * (calls % 7))

    model = model_of.__wrapped__("Reward Forcing")
    model.attention = attention
    found = promises(model)
    assert not found["same seed"].passed
    assert not found["rewind and re-roll"].passed
    assert not found["lost cache"].passed


def test_a_cache_that_is_rebuilt_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass too few, as a wrong bound of the replay would do it."""
    write, release = sampler.write_pass, CachePool.release
    releases = 0

    def releasing(pool: CachePool) -> None:
        nonlocal releases
        releases += 1
        release(pool)

    def writing(*args: Any) -> Any:
        nonlocal releases
        if releases == 3:  # two videos were begun, and then the cache was lost
            releases += 1
            return lambda: None
        return write(*args)

    monkeypatch.setattr(CachePool, "release", releasing)
    monkeypatch.setattr(next_chunk, "write_pass", writing)
    found = promises(model_of("Reward Forcing"))
    assert found["same seed"].passed
    assert not found["lost cache"].passed


def test_memory_that_was_not_predicted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CacheShape.nbytes
    monkeypatch.setattr(CacheShape, "nbytes", lambda shape, frames=0: real(shape, frames) + 1)
    check = promises(model_of("Reward Forcing"))["memory"]
    assert not check.passed
    assert "were predicted" in check.said


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small checkpoint under a published name."""
    path = tmp_path / "rewardforcing.safetensors"
    NAMED["Reward Forcing"].write_model(path)
    return path


def test_a_certificate_says_what_was_checked_and_where(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "certificate.json"
    assert main(["verify", str(checkpoint), "--out", str(out), "--threads", "1"]) == 0
    certificate = json.loads(out.read_text())
    assert certificate["passed"] is True
    assert [check["name"] for check in certificate["checks"]] == [
        *("recorded case", "same seed", "rewind and re-roll", "lost cache", "memory")
    ]
    assert certificate["recorded_case"] == "Reward Forcing"
    assert certificate["machine"]["dtype"] == "float32"
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == certificate["line"]
    assert line.startswith("verify passed: rewardforcing.safetensors as ")
    assert str(tmp_path) not in out.read_text()


def test_a_check_that_failed_is_in_the_line_and_in_the_exit_status(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cases_module.Case.play
    monkeypatch.setattr(cases_module.Case, "play", lambda *args, **options: 1.01 * real(*args, **options))
    assert main(["verify", str(checkpoint), "--case-only", "--threads", "1"]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("verify FAILED: ")
    assert re.search(r"recorded case: FAILED, 1\.0e-02 from the numbers recorded for Reward Forcing", line)


def test_settings_without_a_case_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tiny.FOLDER / "transformer.safetensors"), "--case-only", "--threads", "1"]) == 1
    assert "recorded case: none with these settings" in capsys.readouterr().out


def test_ctrl_c_ends_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(self: Case, model: Any, progress: Any, ready: Any) -> Tensor:
        progress("step", 0, 4)
        raise KeyboardInterrupt

    monkeypatch.setattr(cases_module.Case, "play", interrupted)
    out = tmp_path / "certificate.json"
    assert main(["verify", str(checkpoint), "--out", str(out)]) == 130
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "Foo"], "no rollout settings are known for 'Foo'; known are: "),
        (["--preset", "LongLive 2"], "latents of 48 channels, and this file's have 16: name another preset"),
        (["--case-only", "--size", "64", "64"], "--size is of the checkpoint's own video"),
        (["--size", "60", "64"], "this model makes multiples of 16. The nearest are 48 and 64"),
        (["--out", "rewardforcing.safetensors"], "choose another file for --out"),
        (["--out", "no/folder/here.json"], "no/folder"),
        (["--device", "nothing"], "--device is 'nothing'"),
    ],
)
def test_what_cannot_be_verified_is_refused_in_a_sentence(
    checkpoint: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    assert main(["verify", checkpoint.name, *options, "--threads", "1"]) == 1
    assert message in capsys.readouterr().err


def test_a_file_that_does_not_tell_its_model_asks_for_the_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "causal_forcing.safetensors"
    state = NAMED["Causal Forcing, frame-wise"].weights()
    save_file(state, path, {"sf.num_heads": "2", "sf.text_len": "8"})
    assert main(["verify", str(path), "--case-only", "--threads", "1"]) == 1
    assert "Say with --preset which model it is" in capsys.readouterr().err
    preset = ["--preset", "Causal Forcing, frame-wise"]
    assert main(["verify", str(path), "--case-only", "--threads", "1", *preset]) == 0
