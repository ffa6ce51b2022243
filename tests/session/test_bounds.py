"""Settings and session files that no memory holds are refused in words, before anything is allocated."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import sf_core
from sf_core.session import saved_record
from tests.helpers import SIZE, prompt, random_model

MODEL = random_model(layers=1)
CONFIG = sf_core.RolloutConfig(chunk_frames=1, window_frames=6, denoising_steps=(1000,))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window_frames": 2**62}, "window_frames is 4611686018427387904; expected at most 16384 latent frames"),
        ({"window_frames": 10**7}, "window_frames is 10000000; expected at most"),
        (
            {"chunk_frames": 10**6, "window_frames": None},
            "chunk_frames is 1000000; expected at most 1024 latent frames",
        ),
        ({"first_chunk_frames": 2**40, "window_frames": None}, r"first_chunk_frames is .* expected at most"),
        ({"sink_frames": 2**40, "window_frames": None}, r"sink_frames is .* expected at most"),
        ({"shift": math.inf}, "shift is inf; expected a number above 0, up to 1000"),
        ({"shift": math.nan}, "shift is nan"),
        ({"context_noise": math.nan}, "context_noise is nan"),
        ({"warp_steps": "no"}, "warp_steps is 'no'; expected True or False"),
    ],
)
def test_settings_have_bounds(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sf_core.RolloutConfig(**settings)


def changed(path: Path, **changes: Any) -> Path:
    """Change the record of a session file; settings by the names of `RolloutConfig`, else fields of the record."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    record = json.loads(header["__metadata__"]["sf.session"])
    for name, value in changes.items():
        (record["config"] if name in record["config"] else record)[name] = value
    header["__metadata__"]["sf.session"] = json.dumps(record)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name in ("window_frames", "chunk_frames") for value in (10**7, 2**62)),
        *({"latent_size": [size, size]} for size in (2**20, 2**40)),
        {"batch": 2**30},
        {"channels": 2**30},
    ],
)
def test_a_session_file_has_bounds(changes: dict[str, Any], tmp_path: Path) -> None:
    sf_core.Session.start(MODEL, prompt(0), SIZE, CONFIG).save(tmp_path / "s")
    with pytest.raises(ValueError, match=r"is damaged: .*(expected at most|window_frames is)"):
        sf_core.Session.load(changed(tmp_path / "s", **changes), MODEL)


def test_a_record_of_a_million_blocks_is_checked_quickly_and_can_be_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each different block is looked at once, the others are compared; nobody waits for the end of the check."""
    looked, is_whole = [0], saved_record._is_whole
    answers = iter([False, False, True])
    cancellation = sf_core.Cancellation(lambda: next(answers))

    def counted(*values: Any) -> bool:
        looked[0] += 1
        return is_whole(*values)

    monkeypatch.setattr(saved_record, "_is_whole", counted)
    sf_core.Session.start(MODEL, prompt(0), SIZE, CONFIG).save(tmp_path / "s")
    blocks = [["chunk", 1, 0, 0, 0, number % 3] for number in range(1_000_000)]
    with pytest.raises(ValueError, match=r"is damaged: it holds \['prompt.0'\]; expected \['latents'"):
        sf_core.Session.load(changed(tmp_path / "s", blocks=blocks), MODEL)
    assert looked[0] < 50
    with pytest.raises(sf_core.Cancelled):
        sf_core.Session.load(tmp_path / "s", MODEL, cancellation=cancellation)
    blocks[900_000] = ["context", 1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"the block at frame 900000 is \['context'"):
        sf_core.Session.load(changed(tmp_path / "s", blocks=blocks), MODEL)


def test_loading_a_session_can_be_interrupted_at_each_block(tmp_path: Path) -> None:
    latents = torch.zeros(1, MODEL.arch.in_dim, 9, *SIZE)
    sf_core.Session.start(MODEL, prompt(0), SIZE, CONFIG).with_context(latents).save(tmp_path / "s")
    answers: Iterator[bool] = iter([False] * 4 + [True])
    cancellation = sf_core.Cancellation(lambda: next(answers))
    with pytest.raises(sf_core.Cancelled):
        sf_core.Session.load(tmp_path / "s", MODEL, cancellation=cancellation)
    assert next(answers, None) is None
