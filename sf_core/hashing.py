"""Digests of values, and samples of tensors."""

from __future__ import annotations

import hashlib

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
    return flat[sample_indices(len(flat)).to(flat.device)].to("cpu", torch.float32)


def sample_indices(count: int) -> Tensor:
    """Return the indices of 16 evenly spread ones among ``count`` values."""
    return torch.linspace(0, count - 1, 16 if count else 0, dtype=torch.float64, device="cpu").long()
