"""Digests of values, and fingerprints of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def digest(*parts: bytes) -> bytes:
    """16 bytes that stand for ``parts``."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.digest()


def tensor_digest(tensor: Tensor) -> bytes:
    """Of shape and values; waits for the device."""
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    return digest(repr(tuple(values.shape)).encode(), values.numpy().tobytes())


def sampled_values(tensor: Tensor) -> Tensor:
    """16 values of a tensor, evenly spread, float32 on the CPU; none of an empty one."""
    flat = tensor.detach().reshape(-1)
    picked = torch.linspace(0, len(flat) - 1, 16 if len(flat) else 0, dtype=torch.float64).long()
    return flat[picked.to(flat.device)].to("cpu", torch.float32)


def weights_fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """``<width>x<layers>-<hash>`` of names, shapes and a few values of each tensor, rounded to bfloat16."""
    lines, width, layers = [], 0, set()
    for name, tensor in sorted(tensors):
        values = sampled_values(tensor).to(torch.bfloat16).float()
        lines.append(f"{name} {list(tensor.shape)} {values.tolist()}")
        width = tensor.shape[0] if name == "patch_embedding.bias" else width
        layers |= {name.split(".")[1]} if name.startswith("blocks.") else set()
    return f"{width}x{len(layers)}-{digest('|'.join(lines).encode()).hex()[:12]}"
