"""Recognises that memory ran out, of a GPU or of the CPU."""

from __future__ import annotations

import torch

# CUDA's own errors (AcceleratorError) and those of the CPU's allocator have only their text in common
_TEXTS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that a device ran out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)
