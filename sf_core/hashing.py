"""Digests of values, and fingerprints of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def digest(*parts: bytes) -> bytes:
    """Hash ``parts`` to 16 bytes."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.digest()


def tensor_digest(tensor: Tensor) -> bytes:
    """Hash shape and values of a tensor; waits for the device."""
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    return digest(repr(tuple(values.shape)).encode(), values.numpy().tobytes())


def sampled_values(tensor: Tensor) -> Tensor:
    """Return 16 evenly spread values of a tensor, float32 on the CPU; none of an empty one."""
    flat = tensor.detach().reshape(-1)
    indices = torch.linspace(0, len(flat) - 1, 16 if len(flat) else 0, dtype=torch.float64).long()
    return flat[indices.to(flat.device)].to("cpu", torch.float32)


def weights_fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return ``<width>x<layers>-<hash>``, a hash of names, shapes and 16 values of each tensor, rounded to bfloat16."""
    lines, width, layers = [], 0, set()
    for name, tensor in sorted(tensors):
        values = sampled_values(tensor).to(torch.bfloat16).float()
        lines.append(f"{name} {list(tensor.shape)} {values.tolist()}")
        width = tensor.shape[0] if name == "patch_embedding.bias" else width
        layers |= {name.split(".")[1]} if name.startswith("blocks.") else set()
    return f"{width}x{len(layers)}-{digest('|'.join(lines).encode()).hex()[:12]}"
