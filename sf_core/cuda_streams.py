"""CUDA stream helpers; no-ops on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor


def to_device_async(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` on ``device``, without waiting for a GPU to finish its queued work as a plain copy would.

    Where the system has no more memory to pin (a host may have pinned a whole model), a plain copy that waits.
    """
    device = torch.device(device)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    try:
        pinned = tensor.pin_memory()
    except RuntimeError:  # of CUDA, which calls it out of memory
        return tensor.to(device)
    return pinned.to(device, non_blocking=True)


@lru_cache
def sampling_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The side stream that sampling runs on; None where the device is no GPU.

    There is one for each device, since the allocator keeps memory of its own for each stream.
    """
    return torch.cuda.Stream(device) if device.type == "cuda" else None


@lru_cache
def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The side stream for copies between host and device; None where the device is no GPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


@contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the block's GPU work on ``stream``, and wait for it at the end. None: on the current stream."""
    if stream is None:
        yield
        return
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        stream.synchronize()


def wait_for_current_stream(stream: torch.cuda.Stream | None) -> None:
    """Make ``stream`` wait for the work that the current stream holds now."""
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(stream.device))


def free_pinned_memory() -> None:
    """Give pinned memory that is no longer used back to the system; torch would keep it for later."""
    if torch.cuda.is_available():
        torch.accelerator.memory.empty_host_cache()


def record_on_stream(tensor: Tensor, stream: torch.cuda.Stream | None) -> None:
    """Keep the allocator from reusing the memory of ``tensor`` before ``stream`` has finished with it."""
    if stream is not None:
        tensor.record_stream(stream)


def record_on_current_stream(tensor: Tensor) -> None:
    """Keep the allocator from reusing the memory of ``tensor`` before the current stream has finished with it."""
    if tensor.device.type == "cuda":
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
