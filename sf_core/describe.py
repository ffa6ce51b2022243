"""What a file is, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sf_core.checkpoint import detect_architecture, read_safetensors
from sf_core.session_file import KEY, read_record


def describe(path: Path) -> str:
    """A session file or a checkpoint, described line by line. Raises ValueError for anything else."""
    state, metadata = read_safetensors(path)
    if KEY in metadata:
        return _describe_session(read_record(path))
    arch = detect_architecture(state, metadata, {})
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    lines = {
        "kind": "Wan 2.1 text-to-video transformer",
        "parameters": f"{sum(t.numel() for t in state.values()) / 1e6:.2f} million, {', '.join(dtypes)}",
        "width, layers, heads": f"{arch.dim}, {arch.num_layers}, {arch.num_heads}",
        "text": f"{arch.text_len} rows of {arch.text_dim}",
        **{name: value for name, value in sorted(metadata.items()) if name.startswith("sf.")},
    }
    return _table(lines)


def _describe_session(record: dict[str, Any]) -> str:
    chunks = [block for block in record["blocks"] if block[0] == "chunk"]
    context = sum(block[1] for block in record["blocks"] if block[0] == "context")
    rows, columns = record["latent_size"]
    seeds = ["the caller's noise" if seed is None else str(seed) for seed in record["seeds"]]
    lines = {
        "kind": f"session, format {record['version']}",
        "made by": ", ".join([record["model"], *record["other_models"]]),
        "chunks": f"{len(chunks)} sampled, {context} latent frames of context",
        "latents": f"{sum(b[1] for b in record['blocks'])} frames of {rows} x {columns}, batch {record['batch']}",
        "seeds": ", ".join(seeds),
        "events": _events(record["blocks"]),
        **{name: value for name, value in record["config"].items() if value is not None},
    }
    return _table(lines)


def _events(blocks: list[list[Any]]) -> str:
    """Where prompts and seeds changed and the cache was cut or rewritten, by sampled chunk."""
    found, chunk, before = [], 0, None
    for kind, _, _, prompt, seed, code in blocks:
        if before is not None and kind == "chunk":
            changes = ["prompt"] * (prompt != before[0]) + ["seed"] * (seed != before[1])
            changes += ["cut"] * bool(code & 1) + ["recache"] * bool(code & 2)
            found += [f"{', '.join(changes)} at chunk {chunk}"] if changes else []
        before = (prompt, seed)
        chunk += kind == "chunk"
    return "; ".join(found) or "none"


def _table(lines: dict[str, Any]) -> str:
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())
