"""The second set of weights of a MODEL (SGF+): a part of its transformer, which ComfyUI loads and counts with it."""

from __future__ import annotations

import uuid
from typing import Any

from torch import nn

from ...sf_core.model.two_sets import memory_name

MEMORY = "memory"  # the attribute of the transformer
_PREFIX = "diffusion_model."


def attach(patcher: Any, memory: Any) -> Any:
    """Make the transformer of another MODEL the second set of a MODEL, which is returned."""
    setattr(patcher.model.diffusion_model, MEMORY, memory.model.diffusion_model)
    patcher.size = 0  # it is counted when it is next asked for
    return patcher


def of(net: Any) -> nn.Module | None:
    """Return the second set of a transformer; None if it has one only."""
    return getattr(net, MEMORY, None)


def published_name(name: str) -> str:
    """Return the name that a published file gives to a weight of a transformer with two sets."""
    plain = name.removeprefix(f"{MEMORY}.")
    return name if plain == name else memory_name(plain)


def patch_both(patcher: Any) -> None:
    """Let the patches of the first set (LoRAs) apply to the second set too, which no file of a LoRA names."""
    first = {
        name: patches
        for name, patches in patcher.patches.items()
        if name.startswith(_PREFIX) and not name.startswith(f"{_PREFIX}{MEMORY}.")
    }
    second = {f"{_PREFIX}{MEMORY}.{name.removeprefix(_PREFIX)}": patches for name, patches in first.items()}
    missing = {name: patches for name, patches in second.items() if name not in patcher.patches}
    if missing:
        patcher.patches = {**patcher.patches, **missing}
        patcher.patches_uuid = uuid.uuid5(uuid.NAMESPACE_OID, f"{patcher.patches_uuid} of both sets")
