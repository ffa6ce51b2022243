"""The record of a session file: read, checked, and its events as text."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..cancellation import Cancellation
from ..config import RolloutConfig
from ..files.file_kinds import other_kind
from ..schedule import TRAIN_STEPS
from .blocks import EVENT_CODES, Event
from .noise_record import are_facts
from .session_file import FORMAT_VERSION, HELD, KEY, SOURCES, stored_names
from .source import SCHEDULES


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
    if not all(are_facts(facts, with_published=record["version"] > 2) for facts in record["seeds"]):
        yield f"seeds is {reprlib.repr(record['seeds'])}; expected whole numbers, or noise as published"
    prompts = sum(name.startswith("prompt.") for name in layout)

    def is_made(by: list[Any]) -> bool:  # prompt, seed, code of the event
        bounds = (prompts, len(record["seeds"]), EVENT_CODES[record["version"]])
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
    lengths = [facts["frames"] for facts in record["seeds"] if isinstance(facts, dict)]
    if any(config.fitting_frames(length) != length for length in lengths):
        yield f"its noise is of videos of {reprlib.repr(lengths)} latent frames, which its chunks do not fill"
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
    stored = set(stored_names(config)) if start else set[str]()
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
    sourced = source_frames(record, config)
    if sourced is None:
        yield f"sources is {reprlib.repr(record['sources'])}; expected rising numbers of blocks, strengths, schedules"
    if sourced:
        stored.add(SOURCES)
    held = {HELD} & layout.keys() if config.context_in_chunk else set[str]()
    expected = {f"prompt.{i}" for i in range(prompts)} | stored | held
    if layout.keys() != expected:
        yield f"it holds {reprlib.repr(sorted(layout))}; expected {reprlib.repr(sorted(expected))}"
    for name, (dtype, shape) in layout.items():
        rows = shape[1] if len(shape) == 3 else 0
        counts = {"flights": flying, HELD: 1, "reencoded": len(again), SOURCES: sum((sourced or {}).values())}
        fits = (
            [[counts.get(name, start), *sizes]]
            if name in stored | held
            else [[n, rows, record["text_dim"]] for n in (1, sizes[0])]
        )
        if dtype != "F32" or shape not in fits:
            yield f"{name} is {dtype} {shape}; expected F32 {fits[-1]}"


def _frames_in_flight(record: Mapping[str, Any], config: RolloutConfig) -> tuple[int, str]:
    """Latent frames that a record says were in flight at any time, and its fault, if it has one."""
    states = record.get("flights")
    if config.schedule != "rolling":
        return 0, "" if states is None else "it has chunks in flight, which its schedule does not have"
    steps, whole = len(config.denoising_steps), type(states) is list and len(states) == len(record["blocks"]) + 1
    if not whole or not all(type(state) is list and len(state) < steps for state in states or []):
        return 0, f"flights is {reprlib.repr(states)}; expected the steps of chunks in flight before each block"
    assert states is not None
    if not all(_is_whole(step, 1, steps - 1) and state == sorted(state)[::-1] for state in states for step in state):
        return 0, f"flights is {reprlib.repr(states)}; expected falling steps"
    return sum(flight_frames(record, config)), ""


def flight_frames(record: Mapping[str, Any], config: RolloutConfig) -> list[int]:
    """The number of latent frames in flight before each block of a record, and now; none for another schedule."""
    starts = [0]
    for block in record["blocks"]:
        starts.append(starts[-1] + block[1])
    states = record.get("flights", [])
    return [sum(config.frames_of_flights(at, len(state))) for at, state in zip(starts, states, strict=False)]


def source_frames(record: Mapping[str, Any], config: RolloutConfig) -> dict[int, int] | None:
    """Latent frames of the source of each block that has one, by its number, and of the next chunk. None: a fault."""
    sources, blocks = record.get("sources", []), record["blocks"]
    if type(sources) is not list:
        return None
    found: dict[int, int] = {}
    for source in sources:
        if not (type(source) is list and len(source) == 3 and _is_whole(source[0], 0, len(blocks))):
            return None
        number, strength, schedule = source
        if type(strength) not in (int, float) or not 0 <= strength <= 1 or schedule not in SCHEDULES:
            return None
        if found and number <= max(found):
            return None
        is_next = number == len(blocks)
        found[number] = config.frames_of_block(sum(block[1] for block in blocks)) if is_next else blocks[number][1]
    return found


def _is_whole(value: Any, least: int, most: int = 2**63 - 1) -> bool:
    return type(value) is int and least <= value <= most


def events_in(record: Mapping[str, Any]) -> str:
    """The events of a session's record as text: changes of prompt and seed, cuts and recaches, by sampled chunk."""
    events, chunk, before = [], 0, None
    words = record.get("words", [])
    strengths, strength = {number: strength for number, strength, _ in record.get("sources", [])}, 1.0
    for number, (kind, _, _, prompt, seed, code) in enumerate(record["blocks"]):
        changes = []
        if strengths.get(number, 1.0) != strength:
            strength = strengths.get(number, 1.0)
            changes = [f"a source at strength {strength:g}" if number in strengths else "no source"]
        if before is not None and kind == "chunk":
            named = f"prompt {words[prompt]!r}" if prompt < len(words) and words[prompt] else "prompt"
            changes += [named] * (prompt != before[0]) + ["seed"] * (seed != before[1])
            event = Event.from_code(code)
            changes += ["cut"] * event.cut + ["joint recache" if event.joint else "recache"] * event.recache
            changes += ["shot"] * event.shot + ["colours matched"] * event.match
        if kind == "chunk":
            events += [f"{', '.join(changes)} at chunk {chunk}"] if changes else []
        before = (prompt, seed)
        chunk += kind == "chunk"
    return "; ".join(events) or "none"
