"""Session files written by commit 20d3907 still load, hold the same video, and continue it the same way."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import sf_core
from sf_core import Session, tiny
from sf_core.__main__ import main
from tests.helpers import relative

OLD = Path(__file__).parents[1] / "written_by_20d3907"
SAVED: dict[str, dict[str, Any]] = json.loads((OLD / "sessions.json").read_text())
NEXT_CHUNKS = load_file(OLD / "next_chunks.safetensors")
# Bits are equal with one torch build on one kind of CPU; others round differently.
TOLERANCE = 1e-5

every = pytest.mark.parametrize("name", sorted(SAVED))


class CallersNoise:
    """The noise of `callers_noise.session`, which no file can hold."""

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        return torch.full(shape, 0.1 * chunk + step)


@cache
def model(name: str) -> sf_core.CausalWan:
    """The model that session ``name`` was written with."""
    if name.startswith("tiny"):
        return tiny.load_transformer()
    lora = OLD / "training" / "model.lora.safetensors"
    return sf_core.load_model(OLD / "model.safetensors", lora=lora if name == "lora" else None)


def path_of(name: str) -> Path:
    return OLD / "sessions" / f"{name}.session"


def load(name: str) -> Session:
    """The session, without a live cache from another test."""
    model(name).release_cache()
    return Session.load(path_of(name), model(name), noise=CallersNoise() if name == "callers_noise" else None)


def digest(latents: Tensor) -> str:
    return hashlib.sha256(latents.contiguous().numpy().tobytes()).hexdigest()


def record_of(path: Path) -> dict[str, Any]:
    """The record in a session file, read without the pack's own reader."""
    with safe_open(path, "pt") as file:
        record: dict[str, Any] = json.loads(file.metadata()["sf.session"])
    return record


def test_each_file_has_its_expected_values() -> None:
    names = sorted(path.stem for path in path_of("any").parent.iterdir())
    assert names == sorted(SAVED) == sorted(NEXT_CHUNKS)


@every
def test_an_old_session_holds_what_was_saved(name: str) -> None:
    loaded, saved = load(name), SAVED[name]
    assert (loaded.frames, loaded.chunks, loaded.batch) == (saved["frames"], saved["chunks"], saved["batch"])
    assert loaded.latent_size == tuple(saved["latent_size"])
    assert loaded.config == sf_core.RolloutConfig.from_dict(saved["config"])
    assert loaded.other_models == tuple(saved["other_models"])
    assert loaded.model.fingerprint == saved["model"]
    assert loaded.prompt.words == saved["words"][saved["next"][0]]
    assert digest(loaded.latents) == saved["latents_sha256"]


@every
def test_an_old_session_saved_again_loses_nothing(name: str, tmp_path: Path) -> None:
    """Blocks, prompts, their words, seeds, events and settings are in the new file as they were in the old one."""
    load(name).save(tmp_path / "again.session")
    again, saved = record_of(tmp_path / "again.session"), SAVED[name]
    expected = {key: value for key, value in saved.items() if key not in ("frames", "chunks", "latents_sha256")}
    assert {key: again[key] for key in expected} == expected
    before, after = load_file(path_of(name)), load_file(tmp_path / "again.session")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@every
def test_an_old_session_makes_the_same_next_chunk(name: str) -> None:
    longer, latents = load(name).next_chunk()
    assert latents.shape == NEXT_CHUNKS[name].shape
    assert relative(latents, NEXT_CHUNKS[name]) < TOLERANCE
    assert longer.chunks == SAVED[name]["chunks"] + 1


@pytest.mark.parametrize("name", sorted(name for name in SAVED if SAVED[name]["chunks"]))
def test_each_chunk_of_an_old_session_can_be_sampled_again(name: str) -> None:
    """A rewind brings back the prompt, seed and event that a chunk was sampled with."""
    loaded = load(name)
    for undone in range(1, 2 if name == "other_model" else loaded.chunks + 1):  # older chunks: of the other model
        before = loaded.rewind(undone)
        _, latents = before.next_chunk()
        saved = loaded.latents_between(before.frames, before.frames + latents.shape[2])
        assert relative(latents, saved) < TOLERANCE, f"{undone} chunks undone"


def test_info_describes_an_old_session(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(path_of("prompt_switches"))]) == 0
    text = capsys.readouterr().out
    assert SAVED["prompt_switches"]["model"] in text
    for chunk, words in ((2, "a blue square"), (3, "a green triangle"), (5, "a red circle")):
        assert words in text
        assert f"at chunk {chunk}" in text
    assert "recache" in text


def test_the_command_line_continues_an_old_session(tmp_path: Path) -> None:
    shutil.copy(path_of("tiny"), tmp_path / "old.session")
    arguments = ["--session", tmp_path / "old.session", "--seconds", "0.5", "--out", tmp_path / "video.mp4"]
    assert main(["generate", *map(str, arguments)]) == 0
    longer = Session.load(tmp_path / "old.session", model("tiny"))
    frames = SAVED["tiny"]["frames"]
    assert longer.chunks == SAVED["tiny"]["chunks"] + 1
    assert digest(longer.latents_between(0, frames)) == SAVED["tiny"]["latents_sha256"]
    assert relative(longer.latents_between(frames, longer.frames), NEXT_CHUNKS["tiny"]) < TOLERANCE
