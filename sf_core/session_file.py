"""Session files: a safetensors file with the latents, the prompts, and the record as JSON metadata.

``latents`` is [F, B, C, H, W], frame by frame, so that it is written and read block by block in flat memory.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sf_core.config import RolloutConfig
from sf_core.records import Event, Prompt
from sf_core.noise import NoiseSource, SeededNoise

if TYPE_CHECKING:
    from sf_core.session import Session
    from sf_core.wan_forward import WanForward

FORMAT_VERSION = 1
KEY = "sf.session"


@dataclass(frozen=True)
class MissingNoise:
    """Stands for a caller's noise source, which no file can hold."""

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        raise ValueError(
            "this session was made with a noise source of its caller's, which is not in the file: "
            "pass noise= to Session.load, or go on with with_seed()"
        )


def save_session(session: Session, path: Path) -> None:
    """See `Session.save`."""
    record, prompts = _record(session)
    frames = session.frames
    sizes = [session.batch, session.model.arch.in_dim, *session.latent_size]
    tensors: dict[str, tuple[list[int], int]] = {
        f"prompt.{i}": (list(p.text.shape), p.text.nbytes) for i, p in enumerate(prompts)
    }
    latent_bytes = 4 * frames * sizes[0] * sizes[1] * sizes[2] * sizes[3]
    if frames:
        tensors["latents"] = ([frames, *sizes], latent_bytes)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", KEY: json.dumps(record)}}
    offset = 0
    for name, (shape, nbytes) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    _write_whole(path, header, _data(session, prompts))


def _data(session: Session, prompts: list[Prompt]) -> Iterator[Tensor]:
    yield from (prompt.text for prompt in prompts)
    for block in session.iter_latents():
        yield block.movedim(2, 0)


def _write_whole(path: Path, header: dict[str, Any], data: Iterator[Tensor]) -> None:
    """The file appears under its name only once it is complete and on the disk."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor in data:
                file.write(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}. The session is intact; save it elsewhere"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _record(session: Session) -> tuple[dict[str, Any], list[Prompt]]:
    """The session as JSON, and the prompts that it counts through."""
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
    record = {
        "version": FORMAT_VERSION,
        "model": session.model.fingerprint,
        "other_models": session.other_models,
        "channels": session.model.arch.in_dim,
        "text_dim": session.model.arch.text_dim,
        "latent_size": session.latent_size,
        "batch": session.batch,
        "config": asdict(session.config),
        "blocks": blocks,
        "next": [number(session.prompt), source(session.noise), session.event.code],
        "seeds": list(seeds),
    }
    return record, [prompt for _, prompt in prompts.values()]


def read_record(path: Path) -> dict[str, Any]:
    """The record of a session file. Raises ValueError if it is none."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no session file, or is cut short ({error}); take an older copy") from error
    if KEY not in metadata:
        raise ValueError(f"{path} is a safetensors file, but holds no session")
    record: dict[str, Any] = json.loads(metadata[KEY])
    if record["version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has session format {record['version']}, this version reads up to {FORMAT_VERSION}: update the pack"
        )
    return record


def load_session(path: Path, model: WanForward, noise: NoiseSource | None, allow_other_model: bool) -> Session:
    """See `Session.load`."""
    from sf_core.session import Session

    record = read_record(path)
    others = _check_model(path, record, model, allow_other_model)
    sources = [noise or MissingNoise() if seed is None else SeededNoise(seed) for seed in record["seeds"]]
    with safe_open(path, framework="pt") as file:
        count = sum(name.startswith("prompt.") for name in file.keys())
        prompts = [Prompt(file.get_tensor(f"prompt.{i}")) for i in range(count)]
        session = Session.start(
            model,
            prompts[0].text,
            tuple(record["latent_size"]),
            RolloutConfig.from_dict(record["config"]),
            batch=record["batch"],
        )
        latents = file.get_slice("latents") if record["blocks"] else None
        for kind, frames, timestep, prompt, seed, code in record["blocks"]:
            assert latents is not None
            session = replace(session, prompt=prompts[prompt], noise=sources[seed])
            part = latents[session.frames : session.frames + frames].movedim(0, 2).contiguous().to(model.device)
            session = session.restore_block(part, timestep, Event.from_code(code), sampled=kind == "chunk")
    prompt, seed, code = record["next"]
    return replace(
        session,
        prompt=prompts[prompt],
        noise=sources[seed],
        event=Event.from_code(code),
        other_models=others,
        how="loaded",
    )


def _check_model(path: Path, record: dict[str, Any], model: WanForward, allow: bool) -> tuple[str, ...]:
    """The fingerprints of all other models that this video has seen. Raises ValueError if this one may not go on."""
    arch = model.arch
    if (record["channels"], record["text_dim"]) != (arch.in_dim, arch.text_dim):
        raise ValueError(
            f"{path} was made by a model with {record['channels']} latent channels that reads prompts "
            f"{record['text_dim']} wide; this one: {arch.in_dim} and {arch.text_dim}. Load the model that made it"
        )
    others, made_by, own = list(record["other_models"]), record["model"], model.fingerprint
    if made_by != own:
        if not allow:
            raise ValueError(
                f"{path} was made by the model {made_by}, this one is {own}: load the one that made it, "
                "or allow another model to go on from its latents"
            )
        others = [*(name for name in others if name != own), made_by]
    return tuple(others)
