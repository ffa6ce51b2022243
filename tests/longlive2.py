"""The recorded runs of LongLive 2.0, played by this pack."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

import sf_core
from tests.helpers import PARITY, relative

CASES: dict[str, Any] = json.loads((PARITY / "longlive2.json").read_text())
MODEL = sf_core.load_model(PARITY / "weights_longlive2.safetensors", num_heads=2, text_len=16)


@cache
def tensors_of(case: str) -> dict[str, Tensor]:
    return load_file(PARITY / f"{case}.safetensors")


def config_of(case: str, **changes: Any) -> sf_core.RolloutConfig:
    facts = CASES[case]
    settings: dict[str, Any] = {
        "chunk_frames": facts["chunk"],
        "window_frames": facts["window"],
        "sink_frames": facts["sink"],
        "shift": facts["shift"],
        "solver": "unipc",
        "solver_steps": facts["steps"],
        "shot_offset": facts["offset"],
        "pin_shots": True,
        "context_in_chunk": True,
    }
    return sf_core.RolloutConfig(**{**settings, **changes})


@dataclass
class CaseNoise:
    """The recorded noise; LongLive 2 draws no other than the first of each chunk."""

    whole: Tensor
    frames: int

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        assert step == 0
        return self.whole[:, :, self.frames * chunk : self.frames * (chunk + 1)]


def begin(case: str, model: sf_core.CausalWan = MODEL, **changes: Any) -> sf_core.Session:
    tensors, chunk = tensors_of(case), CASES[case]["chunk"]
    noise = CaseNoise(tensors["noise"].transpose(1, 2), chunk)
    size = (tensors["noise"].shape[3], tensors["noise"].shape[4])
    prompt = tensors[f"prompt_embeds.{CASES[case]['prompts'][0]}"]
    session = sf_core.Session.start(model, prompt, size, config_of(case, **changes), noise=noise)
    given = tensors.get("initial_latent")
    return session if given is None else session.with_context(given.transpose(1, 2))


def step(session: sf_core.Session, case: str) -> sf_core.Session:
    """Set the next chunk's prompt, as the case does, and sample it."""
    name = CASES[case]["prompts"][session.chunks]
    prompt = tensors_of(case)[f"prompt_embeds.{name.rstrip('!')}"]
    session = session.with_shot(prompt) if name.endswith("!") else session.with_prompt(prompt)
    return session.next_chunk()[0]


def play(session: sf_core.Session, case: str) -> sf_core.Session:
    for _ in CASES[case]["prompts"][session.chunks :]:
        session = step(session, case)
    return session


def recorded(case: str) -> Tensor:
    return tensors_of(case)["latents"].transpose(1, 2)


def error_of(session: sf_core.Session, case: str) -> float:
    return relative(play(session, case).latents, recorded(case))
