"""Passes over a cache as CUDA graphs: recorded once and replayed, so that no kernel is launched by hand any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .kv_cache import KeysValues


class Recorded:
    """A pass over a cache, ``run``, that comes to be replayed. ``state`` changes with weights and attention.

    It is recorded when a second chunk takes the very buffers of the one before, which is when the ring is full, and
    forgotten when other buffers, weights or another attention come. Until then, and on a CPU, it is ``run`` as it is.
    The results are the same to the bit: it is the same kernels.
    """

    def __init__(self, run: Callable[..., Tensor | None], state: Callable[[], object]) -> None:
        self._run, self._state = run, state
        self._key: object = None
        self._chunk: Tensor | None = None  # rotations of the newest chunk that was passed over these buffers
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[KeysValues]
    ) -> Tensor | None:
        key = self._key_of(x, text, views)
        if key != self._key:
            self._key, self._graph, self._out = key, None, None
        elif self._graph is None and rotations is not self._chunk and x.is_cuda:
            self._record((x, timestep, rotations), text, views)
        self._chunk = rotations
        if self._graph is None:
            return self._run(x, timestep, rotations, text, views)
        for place, given in zip(self._inputs, (x, timestep, rotations), strict=True):
            place.copy_(given)
        self._graph.replay()
        return None if self._out is None else self._out.clone()  # the next replay overwrites it

    def _key_of(self, x: Tensor, text: Sequence[KeysValues], views: Sequence[KeysValues]) -> object:
        """All that a recording takes for granted."""
        buffers = [tensor.data_ptr() for pair in (*text, *views) for tensor in pair]
        return x.shape, views[0][0].shape, buffers, self._state()

    def _record(self, inputs: tuple[Tensor, ...], text: Sequence[KeysValues], views: Sequence[KeysValues]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread may be decoding
            self._out = self._run(*self._inputs, text, views)
        self._graph = graph
