"""Session files: a safetensors file with the latents, the prompts, and the record as JSON metadata.

The tensor ``latents`` is [F, B, C, H, W], frame by frame, so that it is written and read block by block in flat memory.
Here a session is written; saved_record.py reads and checks the record, session_reading.py the whole session.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..files.safetensors_file import write_tensors
from ..noise import NoiseSource
from .blocks import EVENT_CODES, Prompt
from .noise_record import NoiseFacts, facts_of
from .record import SessionRecord
from .rolling import InFlight
from .source import Source

# 1: without the rules of `config.RULES`. 2: without `PublishedNoise`. 3: without `Event.match` and the schedule
# "repeated" of a `Source`. A session is written in the oldest that holds it.
FORMAT_VERSION = 4
KEY = "sf.session"
SOURCES = "sources"  # the tensor of what chunks were made from, see `Source`: [F, B, C, H, W], one after the other
HELD = "held"  # the tensor of a given frame inside the first chunk, [1, B, C, H, W]


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
        layout |= {name: ([frames, *sizes], torch.float32) for name in stored_names(session.config)}
    flying = sum(part.shape[0] for part in _flights_data(session))
    if flying:
        layout["flights"] = ([flying, *sizes], torch.float32)
    if session.held is not None:
        layout[HELD] = ([1, *sizes], torch.float32)
    if record.get("reencoded"):
        layout["reencoded"] = ([len(record["reencoded"]), *sizes], torch.float32)
    if sources := [source for source in _all_sources(session) if source is not None]:
        layout[SOURCES] = ([sum(source.latents.shape[2] for source in sources), *sizes], torch.float32)
    try:
        write_tensors(path, layout, _data(session, prompts), {KEY: json.dumps(record)})
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}. The session is intact") from error


def file_bytes(session: SessionRecord, frames: int | None = None) -> int:
    """Estimate the size of a session's file with ``frames`` latent frames; None: with those that it has.

    It is asked after each chunk, so it does not look at all blocks: they are taken to be like the newest one.
    """
    rows, columns = session.latent_size
    count = session.frames if frames is None else frames
    config, kept = session.config, float(len(stored_names(session.config)))
    if config.schedule == "rolling":
        kept += len(config.denoising_steps) - 1  # what was in flight before each block
    if config.context == "recompute":
        kept += 1 / config.chunk_frames
    if session.source is not None or (session.head is not None and session.head.source is not None):
        kept += 1
    return round(4 * session.batch * session.model.arch.in_dim * count * rows * columns * kept)


def stored_names(config: RolloutConfig) -> list[str]:
    """The names of a file's latents: clean, and, with ``context_from_last_step``, as the last steps were given them."""
    return ["latents", *(["noisy"] if config.context_from_last_step else [])]


def _data(session: SessionRecord, prompts: list[Prompt]) -> Iterator[Tensor]:
    yield from (prompt.text for prompt in prompts)
    for name in stored_names(session.config):
        for block in session.blocks:
            stored = block.latents if name == "latents" else block.written
            yield stored.on_cpu().movedim(2, 0).float()  # a session is saved when a GPU has run out of memory too
    if session.held is not None:
        yield session.held.cpu().movedim(2, 0)
    yield from _flights_data(session)
    for block in session.blocks:
        if block.reencoded is not None:
            yield block.reencoded.on_cpu().movedim(2, 0).float()
    for source in _all_sources(session):
        if source is not None:
            yield source.latents.on_cpu().movedim(2, 0).float()


def _all_sources(session: SessionRecord) -> list[Source | None]:
    """What each block was made from, oldest first, and what the next chunk is."""
    return [*(block.source for block in session.blocks), session.source]


def _all_flights(session: SessionRecord) -> list[InFlight | None]:
    """What was in flight before each block, oldest first, and what is now; none at all for another schedule."""
    if session.config.schedule != "rolling":
        return []
    return [*(block.flights for block in session.blocks), session.flights]


def _flights_data(session: SessionRecord) -> Iterator[Tensor]:
    for flights in _all_flights(session):
        if flights is not None:
            yield flights.latents.on_cpu().movedim(2, 0).float()


def record_of(session: SessionRecord) -> tuple[dict[str, Any], list[Prompt]]:
    """The session as JSON, and the prompts that the JSON numbers."""
    prompts: dict[bytes, tuple[int, Prompt]] = {}
    seeds: dict[str, tuple[int, NoiseFacts]] = {}

    def number(prompt: Prompt) -> int:
        return prompts.setdefault(prompt.digest, (len(prompts), prompt))[0]

    def source(noise: NoiseSource) -> int:
        facts = facts_of(noise)
        return seeds.setdefault(repr(facts), (len(seeds), facts))[0]

    blocks = []
    for block in session.blocks:
        kind = "context" if block.chunk is None else "chunk"
        made = [number(block.prompt), source(block.noise), block.event.code]
        blocks.append([kind, block.place.frames, block.timestep, *made])
    next_made = [number(session.prompt), source(session.noise), session.event.code]
    codes = [session.event.code, *(block.event.code for block in session.blocks)]
    sources = [
        [number, source.strength, source.schedule]
        for number, source in enumerate(_all_sources(session))
        if source is not None
    ]
    has_rules = session.config.has_rules or bool(sources)
    has_published = any(isinstance(facts, dict) for _, facts in seeds.values())
    has_repeated = any(schedule == "repeated" for _, _, schedule in sources)
    least = 4 if has_repeated else 3 if has_published else 2 if has_rules else 1
    record = {
        "version": next(version for version, known in EVENT_CODES.items() if version >= least and max(codes) < known),
        "model": session.model.fingerprint,
        "other_models": session.other_models,
        "channels": session.model.arch.in_dim,
        "text_dim": session.model.arch.text_dim,
        "latent_size": session.latent_size,
        "batch": session.batch,
        "config": session.config.as_dict(),
        "blocks": blocks,
        "next": next_made,
        "seeds": [facts for _, facts in seeds.values()],
    }
    if sources:
        record["sources"] = sources
    if session.config.schedule == "rolling":
        record["flights"] = [[] if flights is None else list(flights.steps) for flights in _all_flights(session)]
    if session.config.context == "recompute":
        record["reencoded"] = [number for number, block in enumerate(session.blocks) if block.reencoded is not None]
    used = [prompt for _, prompt in prompts.values()]
    record["words"] = [prompt.words for prompt in used]
    return record, used
