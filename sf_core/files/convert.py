"""Conversion of checkpoints to safetensors with original names, and with metadata for what the weights do not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..model.two_sets import memory_name
from .checkpoint import Source, empty_model, lora_settings, open_source
from .published_models import model_by_name
from .safetensors_file import write_tensors
from .weights import memory_weights, transformer_weights

ENDING = ".safetensors"


def convert(
    source: Source,
    target: str | Path,
    dtype: torch.dtype | None = None,
    lora: Source | None = None,
    lora_strength: float = 1.0,
    member: str | None = None,
    **overrides: Any,
) -> dict[str, str]:
    """Convert a transformer weight by weight; the target appears when it is complete.

    Args:
        source: As in `load_model`.
        target: The safetensors file to write.
        dtype: Of the weights; None keeps each weight's own (quantised ones, and fp8 with a LoRA, become bf16).
        lora: As in `load_model`.
        lora_strength: As in `load_model`.
        member: Name of the published model that this is; its rollout settings become metadata.
        **overrides: As in `load_model`.

    Returns:
        The metadata of the target.

    Raises:
        ValueError: The source does not fit, or the target is named as another kind of file; the message says what.
        OSError: The target cannot be written.
    """
    if Path(target).suffix.lower() not in ("", ENDING):
        raise ValueError(f"{target}: convert writes safetensors; let the name end in {ENDING}")
    tensors, metadata = open_source(source)
    changes = None
    if lora is not None:
        metadata |= lora_settings(lora)
        changes = open_source(lora)[0]
    weights = transformer_weights(tensors, changes, lora_strength)
    arch = empty_model(weights, metadata, overrides).arch
    memory = memory_weights(tensors, changes, lora_strength) or {}
    weights |= {memory_name(name): weight for name, weight in memory.items()}
    facts = {name: value for name, value in metadata.items() if name.startswith("sf.")}
    facts |= {"sf.num_heads": str(arch.num_heads), "sf.text_len": str(arch.text_len)}
    if member is not None:
        model = model_by_name(member)
        facts |= {"sf.member": model.name, "sf.rollout": json.dumps(model.config.as_dict())} if model.config else {}
    layout = {name: (weight.shape, dtype or weight.dtype) for name, weight in weights.items()}
    # wide dtypes first, so that every tensor begins at a multiple of its item size
    layout = dict(sorted(layout.items(), key=lambda entry: -entry[1][1].itemsize))
    write_tensors(Path(target), layout, (weights[name].read("cpu", kind) for name, (_, kind) in layout.items()), facts)
    return facts
