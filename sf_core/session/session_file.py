"""Session files: a safetensors file with the latents, the prompts, and the record as JSON metadata.

The tensor ``latents`` is [F, B, C, H, W], frame by frame, so that it is written and read block by block in flat memory.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..cancellation import Cancellation
from ..config import RolloutConfig
from ..files.file_kinds import other_kind
from ..files.safetensors_file import open_tensors, write_tensors
from ..model.causal_model import CausalModel
from ..noise import MAX_SEED, NoiseSource, SeededNoise
from ..schedule import TRAIN_STEPS
from .archive import StoredLatents
from .blocks import EVENT_CODES, FIRST_EVENT_CODES, Event, Prompt
from .record import SessionRecord
from .rolling import InFlight

FORMAT_VERSION = 2  # 1: without the rules of `config.RULES`; a session without them is still written as 1
KEY = "sf.session"
HELD = "held"  # the tensor of a given frame inside the first chunk, [1, B, C, H, W]


@dataclass(frozen=True)
class MissingNoise:
    """A placeholder for the caller's own noise source, which a file cannot hold."""

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """Raises ValueError: there is no noise to give."""
        raise ValueError(
            "this session was made with a noise source of its caller's, which is not in the file: "
            "pass noise= to Session.load, or go on with with_seed()"
        )


def save_session(session: SessionRecord, path: Path, about: Mapping[str, str | float] | None = None) -> None:
    """Write a session, whole or not at all.

    Args:
        session: The session.
        path: The file.
        about: Facts for people, by name. They change no result.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
        ValueError: The session lacks frames.
    """
    record, prompts = record_of(session)
    record["weights"] = session.model.description()
    record["about"] = dict(about or {})
    frames = session.frames
    recorded = sum(block[1] for block in record["blocks"])
    if recorded != frames:  # a bug; but a file that cannot be loaded must not be written
        raise ValueError(f"the session counts {frames} latent frames and holds {recorded}: it is not saved")
    sizes = [session.batch, session.model.arch.in_dim, *session.latent_size]
    layout = {f"prompt.{i}": (list(p.text.shape), torch.float32) for i, p in enumerate(prompts)}
    if frames:
        layout |= {name: ([frames, *sizes], torch.float32) for name in _stored_names(session.config)}
    flying = sum(part.shape[0] for part in _flights_data(session))
    if flying:
        layout["flights"] = ([flying, *sizes], torch.float32)
    if session.held is not None:
        layout[HELD] = ([1, *sizes], torch.float32)
    if record.get("reencoded"):
        layout["reencoded"] = ([len(record["reencoded"]), *sizes], torch.float32)
    try:
        write_tensors(path, layout, _data(session, prompts), {KEY: json.dumps(record)})
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}. The session is intact") from error


def file_bytes(session: SessionRecord, frames: int | None = None) -> int:
    """Estimate the size of a session's file with ``frames`` latent frames; None: with those that it has."""
    rows, columns = session.latent_size
    count = session.frames if frames is None else frames
    kept = len(_stored_names(session.config))
    return 4 * session.batch * session.model.arch.in_dim * count * rows * columns * kept


def _stored_names(config: RolloutConfig) -> list[str]:
    """The names of a file's latents: clean, and, with ``context_from_last_step``, as the last steps were given them."""
    return ["latents", *(["noisy"] if config.context_from_last_step else [])]


def _data(session: SessionRecord, prompts: list[Prompt]) -> Iterator[Tensor]:
    yield from (prompt.text for prompt in prompts)
    blocks = list(session.head.back())[::-1] if session.head else []
    for name in _stored_names(session.config):
        for block in blocks:
            stored = block.latents if name == "latents" else block.written
            yield stored.on_cpu().movedim(2, 0).float()  # a session is saved when a GPU has run out of memory too
    if session.held is not None:
        yield session.held.cpu().movedim(2, 0)
    yield from _flights_data(session)
    for block in blocks:
        if block.reencoded is not None:
            yield block.reencoded.on_cpu().movedim(2, 0).float()


def _all_flights(session: SessionRecord) -> list[InFlight | None]:
    """What was in flight before each block, oldest first, and what is now; none at all for another schedule."""
    if session.config.schedule != "rolling":
        return []
    blocks = list(session.head.back())[::-1] if session.head else []
    return [*(block.flights for block in blocks), session.flights]


def _flights_data(session: SessionRecord) -> Iterator[Tensor]:
    for flights in _all_flights(session):
        if flights is not None:
            yield flights.latents.on_cpu().movedim(2, 0).float()


def record_of(session: SessionRecord) -> tuple[dict[str, Any], list[Prompt]]:
    """The session as JSON, and the prompts that the JSON numbers."""
    prompts: dict[bytes, tuple[int, Prompt]] = {}
    seeds: dict[int | None, int] = {}

    def number(prompt: Prompt) -> int:
        return prompts.setdefault(prompt.digest, (len(prompts), prompt))[0]

    def source(noise: NoiseSource) -> int:
        return seeds.setdefault(noise.seed if isinstance(noise, SeededNoise) else None, len(seeds))

    blocks = []
    for block in reversed(list(session.head.back()) if session.head else []):
        kind = "context" if block.chunk is None else "chunk"
        made = [number(block.prompt), source(block.noise), block.event.code]
        blocks.append([kind, block.place.frames, block.timestep, *made])
    next_made = [number(session.prompt), source(session.noise), session.event.code]
    codes = [session.event.code, *(block.event.code for block in (session.head.back() if session.head else ()))]
    has_rules = session.config.has_rules or any(code >= FIRST_EVENT_CODES for code in codes)
    record = {
        "version": FORMAT_VERSION if has_rules else 1,
        "model": session.model.fingerprint,
        "other_models": session.other_models,
        "channels": session.model.arch.in_dim,
        "text_dim": session.model.arch.text_dim,
        "latent_size": session.latent_size,
        "batch": session.batch,
        "config": session.config.as_dict(),
        "blocks": blocks,
        "next": next_made,
        "seeds": list(seeds),
    }
    if session.config.schedule == "rolling":
        record["flights"] = [[] if flights is None else list(flights.steps) for flights in _all_flights(session)]
    if session.config.context == "recompute":
        all_blocks = list(session.head.back())[::-1] if session.head else []
        record["reencoded"] = [number for number, block in enumerate(all_blocks) if block.reencoded is not None]
    used = [prompt for _, prompt in prompts.values()]
    record["words"] = [prompt.words for prompt in used]
    return record, used


def read_record(path: Path, cancellation: Cancellation | None = None) -> dict[str, Any]:
    """The record of a session file, checked; long ones with a look at ``cancellation`` now and then.

    Raises:
        ValueError: It is no session file, or damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a session file in it")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}
            layout = {name: (part.get_dtype(), list(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        why = f"it {kind}" if (kind := other_kind(path)) else f"{error}; take an older copy"
        raise ValueError(f"{path} is no session file, or is cut short: {why}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} is a safetensors file, but holds no session")
    try:
        record = json.loads(metadata[KEY])
        fault = next(_faults(record, layout, cancellation or Cancellation()), None)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        fault = f"its record cannot be read, {type(error).__name__}: {error}"
    if fault:
        raise ValueError(f"{path} is damaged: {fault}. Take an older copy")
    if record["version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has session format {record['version']}, this version reads up to {FORMAT_VERSION}: update the pack"
        )
    return dict(record)


_FIELDS = {
    "version": int, "model": str, "other_models": list, "channels": int, "text_dim": int, "latent_size": list,
    "batch": int, "config": dict, "blocks": list, "next": list, "seeds": list,
}  # fmt: skip


_POLLED = 10_000  # blocks
_MOST = (1024, 4096, 4096, 4096)  # videos in a batch, channels, rows and columns of a latent frame


def _faults(record: Any, layout: Mapping[str, tuple[str, list[int]]], cancellation: Cancellation) -> Iterator[str]:
    """Faults of a record. Only the first one counts: every check relies on those before it.

    Args:
        record: The JSON of a session file.
        layout: Dtype and shape of each tensor in the file.
        cancellation: Polled every `_POLLED` blocks.
    """
    if not isinstance(record, dict) or not _is_whole(record.get("version"), 1):
        yield "its record has no version"
    if record["version"] > FORMAT_VERSION:
        return
    for name, kind in _FIELDS.items():
        if type(record.get(name)) is not kind:
            yield f"{name} is {reprlib.repr(record.get(name))}; expected {kind.__name__}"
    sizes = [record["batch"], record["channels"], *record["latent_size"]]
    if len(sizes) != 4 or not all(_is_whole(size, 1) for size in sizes):
        yield f"batch, channels and latent_size are {reprlib.repr(sizes)}; expected whole numbers from 1 on"
    if any(size > most for size, most in zip(sizes, _MOST, strict=True)):
        yield f"batch, channels and latent_size are {sizes}; expected at most {list(_MOST)}"
    if not all(isinstance(name, str) for name in record["other_models"]):
        yield f"other_models is {reprlib.repr(record['other_models'])}; expected names"
    if not all(seed is None or _is_whole(seed, 0, MAX_SEED) for seed in record["seeds"]):
        yield f"seeds is {reprlib.repr(record['seeds'])}; expected whole numbers"
    prompts = sum(name.startswith("prompt.") for name in layout)

    def is_made(by: list[Any]) -> bool:  # prompt, seed, code of the event
        bounds = (prompts, len(record["seeds"]), EVENT_CODES if record["version"] > 1 else FIRST_EVENT_CODES)
        return len(by) == 3 and all(_is_whole(number, 0, n - 1) for number, n in zip(by, bounds, strict=True))

    words = record.get("words", [""] * prompts)
    if type(words) is not list or len(words) != prompts or not all(type(text) is str for text in words):
        yield f"words is {reprlib.repr(words)}; expected the text of each of {prompts} prompts"
    weights = record.get("weights", {})  # not in the files of the first versions
    if type(weights) is not dict or not all(type(value) is str for value in weights.values()):
        yield f"weights is {reprlib.repr(weights)}; expected a description of the model"
    about = record.get("about", {})  # likewise
    if type(about) is not dict or not all(type(value) in (str, int, float) for value in about.values()):
        yield f"about is {reprlib.repr(about)}; expected texts and numbers by name"
    if not is_made(record["next"]):
        yield f"next is {reprlib.repr(record['next'])}; expected numbers of a prompt, a seed and an event"
    config = RolloutConfig.from_dict(record["config"])
    start, sampled = 0, False
    right = set[str]()  # a session of a million blocks has few different ones
    for number, block in enumerate(record["blocks"]):
        if number % _POLLED == 0:
            cancellation.raise_if_asked()
        look = repr(block)
        if look in right:
            start += block[1]
            continue
        kinds = ("chunk",) if sampled else ("context", "chunk")
        whole = isinstance(block, list) and len(block) == 6 and type(block[2]) in (int, float)
        if not (whole and block[0] in kinds and 0 <= block[2] <= TRAIN_STEPS and is_made(block[3:])):
            yield f"the block at frame {start} is {reprlib.repr(block)}; expected one of {' or '.join(kinds)}"
        if block[1] != config.frames_of_block(start):
            yield f"the block at frame {start} has {reprlib.repr(block[1])} frames, not {config.frames_of_block(start)}"
        if start and sampled == (block[0] == "chunk"):
            right.add(look)
        else:  # the first block may have a length of its own, and no context follows a chunk
            right.clear()
        start, sampled = start + block[1], block[0] == "chunk"
    stored = set(_stored_names(config)) if start else set[str]()
    flying, fault = _frames_in_flight(record, config)
    if fault:
        yield fault
    if flying:
        stored.add("flights")
    again = record.get("reencoded", [])  # numbers of blocks
    known = type(again) is list and all(_is_whole(number, 0, len(record["blocks"]) - 1) for number in again)
    if not known or sorted(set(again)) != again or (again and config.context != "recompute"):
        yield f"reencoded is {reprlib.repr(again)}; expected rising numbers of blocks"
    if again:
        stored.add("reencoded")
    held = {HELD} & layout.keys() if config.context_in_chunk else set[str]()
    expected = {f"prompt.{i}" for i in range(prompts)} | stored | held
    if layout.keys() != expected:
        yield f"it holds {reprlib.repr(sorted(layout))}; expected {reprlib.repr(sorted(expected))}"
    for name, (dtype, shape) in layout.items():
        rows = shape[1] if len(shape) == 3 else 0
        counts = {"flights": flying, HELD: 1, "reencoded": len(again)}
        fits = (
            [[counts.get(name, start), *sizes]]
            if name in stored | held
            else [[n, rows, record["text_dim"]] for n in (1, sizes[0])]
        )
        if dtype != "F32" or shape not in fits:
            yield f"{name} is {dtype} {shape}; expected F32 {fits[-1]}"


def _frames_in_flight(record: Mapping[str, Any], config: RolloutConfig) -> tuple[int, str]:
    """Latent frames that a record says were in flight at any time, and its fault, if it has one."""
    states, starts = record.get("flights"), [0]
    if config.schedule != "rolling":
        return 0, "" if states is None else "it has chunks in flight, which its schedule does not have"
    for block in record["blocks"]:
        starts.append(starts[-1] + block[1])
    steps, whole = len(config.denoising_steps), type(states) is list and len(states) == len(starts)
    if not whole or not all(type(state) is list and len(state) < steps for state in states or []):
        return 0, f"flights is {reprlib.repr(states)}; expected the steps of chunks in flight before each block"
    assert states is not None
    if not all(_is_whole(step, 1, steps - 1) and state == sorted(state)[::-1] for state in states for step in state):
        return 0, f"flights is {reprlib.repr(states)}; expected falling steps"
    return sum(sum(config.frames_of_flights(at, len(state))) for at, state in zip(starts, states, strict=True)), ""


def _is_whole(value: Any, least: int, most: int = 2**63 - 1) -> bool:
    return type(value) is int and least <= value <= most


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
    sources = [noise or MissingNoise() if seed is None else SeededNoise(seed) for seed in record["seeds"]]
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

    states, starts = record.get("flights", []), [0]
    for block in record["blocks"]:
        starts.append(starts[-1] + block[1])
    counts = [sum(config.frames_of_flights(at, len(state))) for at, state in zip(starts, states, strict=False)]

    def flights(number: int) -> InFlight | None:
        if not states or not states[number]:
            return None
        part = tensors["flights"].rows(sum(counts[:number]), counts[number]).read().movedim(0, 2).contiguous()
        part = _finite(path, part, f"what is in flight at frame {starts[number]}").to(model.device)
        return InFlight(tuple(states[number]), StoredLatents(part))

    again = record.get("reencoded", [])

    def reencoded(number: int) -> Tensor | None:
        if number not in again:
            return None
        part = tensors["reencoded"].rows(again.index(number), 1).read().movedim(0, 2).contiguous()
        return _finite(path, part, f"the frame that was encoded anew behind block {number}").to(model.device)

    def blocks() -> Iterator[SavedBlock]:
        start = 0
        for number, (kind, frames, timestep, *made) in enumerate(record["blocks"]):
            names = _stored_names(config) if kind == "chunk" and start else ["latents"]
            parts = (tensors[name].rows(start, frames).read().movedim(0, 2).contiguous() for name in names)
            whole = [_finite(path, part, f"the {kind} at frame {start}").to(model.device) for part in parts]
            noisy = whole[1] if len(whole) > 1 else None
            yield SavedBlock(
                whole[0], timestep, kind == "chunk", settings(*made), noisy, flights(number), reencoded(number)
            )
            start += frames

    size, held, newest = tuple(record["latent_size"]), None, flights(len(record["blocks"]))
    if HELD in tensors:
        held = _finite(path, tensors[HELD].read(), "the given frame").movedim(0, 2).contiguous().to(model.device)
    yield SavedSession(config, size, record["batch"], others, settings(*record["next"]), newest, blocks, held)
    if _version_of(path) != version:
        raise ValueError(f"{path} was changed while it was read: load it again")


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


def events_in(record: Mapping[str, Any]) -> str:
    """The events of a session's record as text: changes of prompt and seed, cuts and recaches, by sampled chunk."""
    found, chunk, before = [], 0, None
    words = record.get("words", [])
    for kind, _, _, prompt, seed, code in record["blocks"]:
        if before is not None and kind == "chunk":
            said = f"prompt {words[prompt]!r}" if prompt < len(words) and words[prompt] else "prompt"
            changes = [said] * (prompt != before[0]) + ["seed"] * (seed != before[1])
            changes += ["cut"] * bool(code & 1) + ["joint recache" if code & 8 else "recache"] * bool(code & 2)
            changes += ["shot"] * bool(code & 16)
            found += [f"{', '.join(changes)} at chunk {chunk}"] if changes else []
        before = (prompt, seed)
        chunk += kind == "chunk"
    return "; ".join(found) or "none"
