"""A GPU's queue of work: filling it without waiting for it, and a second one beside it. Nothing of this is on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` on ``device``. A plain copy would wait until a GPU has done all that it was given before."""
    device = torch.device(device)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@lru_cache
def second_queue(device: torch.device) -> torch.cuda.Stream | None:
    """The one queue on a GPU beside those that threads come with (each keeps memory of its own); None elsewhere."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


@contextmanager
def working_in(queue: torch.cuda.Stream | None) -> Iterator[None]:
    """What this thread gives the GPU goes into ``queue``, and is done when the block ends. None: as ever."""
    if queue is None:
        yield
        return
    try:
        with torch.cuda.stream(queue):
            yield
    finally:
        queue.synchronize()


def let_see(queue: torch.cuda.Stream | None) -> None:
    """What ``queue`` is given from now on finds all done that this thread has given its own."""
    if queue is not None:
        queue.wait_stream(torch.cuda.current_stream(queue.device))


def used_here(tensor: Tensor) -> None:
    """The memory of a tensor from another queue goes to nobody before this thread's own is done with it."""
    if tensor.device.type == "cuda":
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
