"""The recorded runs of other families of causal Wan models, played by this pack.

``python -m tests.families`` prints the error of each against its authors' code, and writes the worst of each model into
the table of docs/models.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

import sf_core
from sf_core import Session
from tests import longlive2
from tests.helpers import ROLLOUTS, RecordedNoise, golden_session, relative

FOLDER = Path(__file__).parent / "parity" / "family"
CASES: dict[str, Any] = json.loads((FOLDER / "cases.json").read_text())
MODEL_SIZES = ("num_heads", "text_len")


@cache
def tensors_of(case: str) -> dict[str, Tensor]:
    """The recorded tensors of a case."""
    return load_file(FOLDER / f"{case}.safetensors")


@cache
def model_of(case: str) -> sf_core.CausalWan:
    """The model of a case."""
    facts = CASES[case]
    sizes = {name: facts["model"][name] for name in MODEL_SIZES}
    return sf_core.load_model(FOLDER / facts["weights"], **sizes)


@cache
def two_sets(denoise: str = "weights", memory: str = "weights_memory") -> sf_core.CausalWan:
    """SGF+: one set of weights denoises, the other writes the cache."""
    sizes = {name: CASES["sgfplus_chunk"]["model"][name] for name in MODEL_SIZES}
    states = [load_file(FOLDER / f"{name}.safetensors") for name in (denoise, memory)]
    plain = [{name.replace("memory_", ""): value for name, value in state.items()} for state in states]
    first, second = (sf_core.load_model(state, **sizes) for state in plain)
    return first.with_memory(second)


def settings_of(case: str) -> dict[str, Any]:
    """The settings of a case as fields of `RolloutConfig`."""
    facts = CASES[case]
    family, given = facts.get("family", case.split("_")[0]), facts.get("settings") or facts["pipeline"]
    if family == "causal_rcm":
        return _rcm(given, facts["timesteps_per_block"])
    steps = tuple(given.get("steps", ()))
    config: dict[str, Any] = {"chunk_frames": given["chunk"], "denoising_steps": steps}
    config["shift"] = given.get("shift", 5.0)
    if family == "memflow":
        config |= {"memory_frames": given["bank"], "memory_interval": given["interval"]}
    if family == "krea":
        steps = tuple(int(1000 - 1000 * i / (given["num_steps"] - 1)) for i in range(given["num_steps"]))
        config |= {"context": "recompute", "context_frames": given["context"], "denoising_steps": steps}
        config["window_frames"] = given["context"] + given["chunk"]
    if family == "rolling":
        config |= {"schedule": "rolling", "window_frames": given["attention_frames"]}
        config["sink_frames"] = given["anchor_frames"]
    if "window" in given:
        config |= {"window_frames": given["window"], "sink_frames": given["sink"]}
    if case == "sink5_window7_rerope":  # there, the window does not count the sink
        config |= {"window_frames": given["window"] + given["sink"], "sink_position": "clamped"}
    elif family in ("sgf", "sgfplus"):
        config |= {"sink_position": "top_aligned", "trained_frames": given["train"]}
    elif case in ("infinite_chunk", "longlive_infinity", "reward_chunk"):
        config |= {"sink_position": "clamped", "sink_average": 0.999 if family == "reward" else None}
    return config


def _rcm(given: dict[str, Any], timesteps: list[list[float]]) -> dict[str, Any]:
    return {
        "chunk_frames": given["chunk"],
        "first_chunk_frames": given["first"],
        "window_frames": None,
        "exact_times": True,
        "first_chunk_steps": tuple(timesteps[0]),
        "denoising_steps": tuple(timesteps[1]),
        "context_from_last_step": given.get("context_from_last_step", False),
    }


class CaseNoise:
    """The noise of a case."""

    def __init__(self, case: str) -> None:
        tensors, config = tensors_of(case), settings_of(case)
        self._tensors, chunk = tensors, config["chunk_frames"]
        self._whole: RecordedNoise | None = None
        if "noise" in tensors:
            frames, first = tensors["noise"].shape[1], config.get("first_chunk_frames") or chunk
            self._whole = RecordedNoise(tensors, [first] + [chunk] * ((frames - first) // chunk))

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        if self._whole is not None:
            return self._whole(chunk, step, shape)
        name = f"noise.c{chunk:02d}" if step == 0 else f"renoise.c{chunk:02d}.s{step - 1}"
        return self._tensors[name].transpose(1, 2)


def start(case: str, changes: Mapping[str, Any] | None = None, **options: Any) -> sf_core.Session:
    """A session set up as the recorded run, but for ``changes`` of its settings."""
    tensors = tensors_of(case)
    config = sf_core.RolloutConfig(**{**settings_of(case), **(changes or {})})
    size = (tensors["latents"].shape[-2], tensors["latents"].shape[-1])
    if config.context == "recompute":
        options = {"reencode": lambda session: tensors[f"reencoded.c{session.chunks:02d}"].transpose(1, 2), **options}
    model = options.pop("model", None) or (two_sets() if case.startswith("sgfplus") else model_of(case))
    session = sf_core.Session.start(model, tensors["prompt_embeds"], size, config, noise=CaseNoise(case), **options)
    if "initial_latent" in tensors:
        session = session.with_context(tensors["initial_latent"].transpose(1, 2))
    return session


def switches(case: str, recache: bool | str = "joint", **options: Any) -> dict[int, Any]:
    """The prompt switches of a case, for `play`."""
    settings = CASES[case]["settings"]
    options = {"recache": recache, "recache_sink": not settings["global_sink"], **options}

    def switch(number: int) -> Any:
        return lambda session: session.with_prompt(tensors_of(case)[f"prompt_embeds.{number + 1}"], **options)

    return {frame: switch(number) for number, frame in enumerate(settings["switch"])}


def play(session: sf_core.Session, case: str, acts: Mapping[int, Any] | None = None) -> sf_core.Session:
    """Sample the recorded length. ``acts`` by latent frame: what is done to the session before the chunk there."""
    frames, config = tensors_of(case)["latents"].shape[1], session.config
    flying = config.chunk_frames * (len(config.denoising_steps) - 1) if config.schedule == "rolling" else 0
    while session.frames < frames - flying:
        if acts and session.frames in acts:
            session = acts[session.frames](session)
        session, _ = session.next_chunk()
    return session.finish()[0] if flying else session


def recorded(case: str) -> Tensor:
    """The latents of the recorded run [B, C, F, H, W]."""
    return tensors_of(case)["latents"].transpose(1, 2)


def acts_of(case: str) -> dict[int, Any]:
    """What was done to the recorded run on its way."""
    if case == "krea_v2v":  # each chunk is made from its part of a video
        chunk, given = CASES[case]["pipeline"]["chunk"], tensors_of(case)["input_latents"].transpose(1, 2)
        strength = CASES[case]["pipeline"]["strength"]
        parts = enumerate(given.split(chunk, dim=2))
        return {
            number * chunk: partial(Session.with_source, latents=part, strength=strength, schedule="rescaled")
            for number, part in parts
        }
    if case == "krea_prompt":  # a blend, one step a chunk
        used = {block: tensors_of(case)[f"prompt_used.c{block:02d}"] for block in (3, 4, 5)}
        return {3 * block: partial(Session.with_prompt, prompt=text) for block, text in used.items()}
    return switches(case) if "switch" in case else {}


# The recorded runs of each model in the table of docs/models.md
RECORDED: dict[str, tuple[str, ...]] = {
    "Self Forcing (DMD, SiD, GAN)": tuple(ROLLOUTS),
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
    "LongLive 2": tuple(longlive2.CASES),
}
DOCS = Path(__file__).parents[1] / "docs" / "models.md"


def ours_and_theirs(case: str) -> tuple[Tensor, Tensor]:
    """The latents of a recorded run, made by this pack and by the authors' code."""
    if case in CASES:
        return play(start(case), case, acts_of(case)).latents, recorded(case)
    if case in longlive2.CASES:
        return longlive2.play(longlive2.begin(case), case).latents, longlive2.recorded(case)
    session, tensors, chunks = golden_session(case)
    for _ in range(chunks):
        session, _ = session.next_chunk()
    return session.latents, tensors["latents"].transpose(1, 2)


def with_errors(page: str, errors: Mapping[str, float]) -> str:
    """The page with the errors, one digit each, in the column of that name."""
    before, column, table = page.partition("| error |")
    for model, error in errors.items():
        row = re.compile(rf"^(\| {re.escape(model)} \|(?:[^|\n]*\|){{2}})[^|\n]*\|", re.M)
        digit, power = f"{error:.0e}".split("e")
        table, count = row.subn(rf"\g<1> {digit}e{int(power)} |", table)
        if count != 1:
            raise ValueError(f"the table of {DOCS.name} has {count} rows of {model!r}; expected one")
    return before + column + table


def main() -> None:
    """Print case, relative L2 error and largest error; write the page's table."""
    worst: dict[str, float] = {}
    for model, cases in RECORDED.items():
        for case in cases:
            ours, theirs = ours_and_theirs(case)
            error = relative(ours, theirs)
            worst[model] = max(error, worst.get(model, 0.0))
            print(f"{model:30}{case:26}{error:.2e}  {float((ours - theirs).abs().max()):.1e}", flush=True)
    DOCS.write_text(with_errors(DOCS.read_text(encoding="utf-8"), worst), encoding="utf-8")
    print(f"written to {DOCS}")


if __name__ == "__main__":
    main()
