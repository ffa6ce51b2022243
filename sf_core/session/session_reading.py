"""A session file, open for reading: its settings, and its blocks one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cancellation import Cancellation
from ..config import RolloutConfig
from ..files.safetensors_file import open_tensors
from ..model.causal_model import CausalModel
from ..noise import NoiseSource, SeededNoise
from .archive import StoredLatents
from .blocks import Event, Prompt
from .noise_record import NoiseFacts
from .published_noise import PublishedNoise
from .rolling import InFlight
from .saved_record import flight_frames, read_record, source_frames
from .session_file import HELD, SOURCES, stored_names
from .source import Source


@dataclass(frozen=True)
class MissingNoise:
    """A placeholder for the caller's own noise source, which a file cannot hold."""

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """Raises ValueError: there is no noise to give."""
        raise ValueError(
            "this session was made with a noise source of its caller's, which is not in the file: "
            "pass noise= to Session.load, or go on with with_seed()"
        )


@dataclass(frozen=True)
class SavedSettings:
    """Prompt, noise and event of a chunk."""

    prompt: Prompt
    noise: NoiseSource
    event: Event


@dataclass(frozen=True)
class SavedBlock:
    """One block of a session file, its latents [B, C, F, H, W] on the model's device."""

    latents: Tensor
    timestep: float
    sampled: bool  # else given context
    settings: SavedSettings
    noisy: Tensor | None = None  # what the last step was given, where its keys and values stay
    flights: InFlight | None = None  # what was in flight before it
    source: Source | None = None  # what it was made from
    reencoded: Tensor | None = None  # the frame that the context of the chunk behind it begins with


@dataclass(frozen=True)
class SavedSession:
    """A session file that is open for reading."""

    config: RolloutConfig
    latent_size: tuple[int, int]
    batch: int
    other_models: tuple[str, ...]  # fingerprints of models that made parts of the video, besides the one that reads it
    next: SavedSettings  # of the chunk after the last one
    flights: InFlight | None  # what is in flight behind the last block
    blocks: Callable[[], Iterator[SavedBlock]]  # oldest first, one in memory at a time
    held: Tensor | None  # see `SessionRecord`
    source: Source | None  # of the chunk after the last one


@contextmanager
def open_session(
    path: Path,
    model: CausalModel,
    noise: NoiseSource | None,
    allow_other_model: bool,
    cancellation: Cancellation | None = None,
) -> Iterator[SavedSession]:
    """A session file as `Session.load` reads it; see there for arguments and errors."""
    version = _version_of(path)
    record = read_record(path, cancellation)
    others = _check_model(path, record, model, allow_other_model)
    sources = [_noise(facts, noise, record, model) for facts in record["seeds"]]
    # read, not mapped: whoever shortens a mapped file kills the process, and whoever changes it changes the session
    tensors, _ = open_tensors(path)
    count = sum(name.startswith("prompt.") for name in tensors)
    words = record.get("words", [""] * count)  # not in the files of the first versions
    prompts = [Prompt(_finite(path, tensors[f"prompt.{i}"].read(), f"prompt {i}"), words[i]) for i in range(count)]
    for prompt in prompts:
        model.check_text(prompt.text)

    def settings(prompt: int, seed: int, code: int) -> SavedSettings:
        return SavedSettings(prompts[prompt], sources[seed], Event.from_code(code))

    config = RolloutConfig.from_dict(record["config"])

    states, counts = record.get("flights", []), flight_frames(record, config)

    def flights(number: int) -> InFlight | None:
        if not states or not states[number]:
            return None
        part = tensors["flights"].rows(sum(counts[:number]), counts[number]).read().movedim(0, 2).contiguous()
        part = _finite(path, part, f"what is in flight before block {number}").to(model.device)
        return InFlight(tuple(states[number]), StoredLatents(part))

    again = record.get("reencoded", [])

    def reencoded(number: int) -> Tensor | None:
        if number not in again:
            return None
        part = tensors["reencoded"].rows(again.index(number), 1).read().movedim(0, 2).contiguous()
        return _finite(path, part, f"the frame that was encoded anew behind block {number}").to(model.device)

    given = {number: (strength, schedule) for number, strength, schedule in record.get("sources", [])}
    sourced = source_frames(record, config) or {}

    def source(number: int) -> Source | None:
        if number not in given:
            return None
        first = sum(frames for other, frames in sourced.items() if other < number)
        part = tensors[SOURCES].rows(first, sourced[number]).read().movedim(0, 2).contiguous()
        part = _finite(path, part, f"what block {number} was made from").to(model.device)
        return Source(StoredLatents(part), *given[number])

    def blocks() -> Iterator[SavedBlock]:
        start = 0
        for number, (kind, frames, timestep, *made) in enumerate(record["blocks"]):
            names = stored_names(config) if kind == "chunk" and start else ["latents"]
            parts = (tensors[name].rows(start, frames).read().movedim(0, 2).contiguous() for name in names)
            whole = [_finite(path, part, f"the {kind} at frame {start}").to(model.device) for part in parts]
            noisy = whole[1] if len(whole) > 1 else None
            kept = flights(number), source(number), reencoded(number)
            yield SavedBlock(whole[0], timestep, kind == "chunk", settings(*made), noisy, *kept)
            start += frames

    size, held, newest = tuple(record["latent_size"]), None, flights(len(record["blocks"]))
    if HELD in tensors:
        held = _finite(path, tensors[HELD].read(), "the given frame").movedim(0, 2).contiguous().to(model.device)
    begin, wanted = settings(*record["next"]), source(len(record["blocks"]))
    yield SavedSession(config, size, record["batch"], others, begin, newest, blocks, held, wanted)
    if _version_of(path) != version:
        raise ValueError(f"{path} was changed while it was read: load it again")


def _noise(facts: NoiseFacts, callers: NoiseSource | None, record: dict[str, Any], model: CausalModel) -> NoiseSource:
    if facts is None:
        return callers or MissingNoise()
    if isinstance(facts, int):
        return SeededNoise(facts)
    config, frame = RolloutConfig.from_dict(record["config"]), (record["channels"], *record["latent_size"])
    return PublishedNoise.from_record(facts, config, frame, record["batch"], model.device)


def _version_of(path: Path) -> tuple[int, ...]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _finite(path: Path, tensor: Tensor, what: str) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{path} is damaged: {what} holds NaN or Inf. Take an older copy")
    return tensor


def _check_model(path: Path, record: dict[str, Any], model: CausalModel, allow: bool) -> tuple[str, ...]:
    """Fingerprints of the other models that made parts of the video. Raises ValueError for one that does not fit."""
    arch = model.arch
    if (record["channels"], record["text_dim"]) != (arch.in_dim, arch.text_dim):
        raise ValueError(
            f"{path} was made by a model with {record['channels']} latent channels that reads prompts "
            f"{record['text_dim']} wide; this one: {arch.in_dim} and {arch.text_dim}. Load the model that made it"
        )
    others, made_by, own = list(record["other_models"]), record["model"], model.fingerprint
    if not model.is_model(made_by, record.get("weights")):
        if not allow:
            same = " by name, but with other weights" if made_by == own else ""
            raise ValueError(
                f"{path} was made by the model {made_by}, this one is {own}{same}: load the one that made it, "
                "or allow another model to go on from its latents"
            )
        others = [*(name for name in others if name != own), made_by]
    return tuple(others)
