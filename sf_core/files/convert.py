"""Checkpoints of any kind into clean safetensors: original names, what the weights do not say as metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .checkpoint import Source, empty_model, find_weights, lora_facts, open_source
from .published_models import member_called
from .safetensors_file import write_tensors


def convert(
    source: Source,
    target: str | Path,
    dtype: torch.dtype | None = None,
    lora: Source | None = None,
    lora_strength: float = 1.0,
    member: str | None = None,
    **overrides: Any,
) -> dict[str, str]:
    """Write the transformer in ``source`` to ``target``, weight by weight; returns the metadata.

    dtype: None keeps each weight's own (fp8 with scales or a LoRA becomes bf16). lora, lora_strength, overrides: as in
    `load_model`. member: the published model that this is; its rollout settings are written too.
    The target appears once it is complete. Raises ValueError naming what does not fit, OSError if it cannot be written.
    """
    tensors, metadata = open_source(source)
    if lora is not None:
        metadata |= lora_facts(lora)
    weights = find_weights(tensors, lora, lora_strength)
    arch = empty_model(weights, metadata, overrides).arch
    facts = {name: value for name, value in metadata.items() if name.startswith("sf.")}
    facts |= {"sf.num_heads": str(arch.num_heads), "sf.text_len": str(arch.text_len)}
    if member is not None:
        found = member_called(member)
        facts |= {"sf.member": found.name, "sf.rollout": json.dumps(asdict(found.config))} if found.config else {}
    layout = {name: (weight.shape, dtype or weight.dtype) for name, weight in weights.items()}
    # wide types first, so that every tensor begins at a multiple of its own width
    layout = dict(sorted(layout.items(), key=lambda entry: -entry[1][1].itemsize))
    write_tensors(Path(target), layout, (weights[name].read("cpu", kind) for name, (_, kind) in layout.items()), facts)
    return facts
