"""CUDA graphs: a pass over a cache is recorded once and replayed, without launching its kernels one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .layer_view import KeysValues, LayerView


class RecordedPass:
    """A pass over a cache that is recorded and replayed.

    It is recorded when a second chunk uses the same buffers as the one before, which is when the ring is full. Other
    buffers, weights or another attention kernel discard the recording. Without one, and on the CPU, ``run`` is called.
    The results are the same bits, since the kernels are the same.

    Args:
        run: The pass.
        state: Returns a value that changes with the weights and the attention kernel.
    """

    def __init__(self, run: Callable[..., Tensor | None], state: Callable[[], object]) -> None:
        self._run, self._state = run, state
        self._key: object = None
        self._chunk: Tensor | None = None  # rotations of the newest chunk that used these buffers
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[LayerView]
    ) -> Tensor | None:
        """Run or replay the pass."""
        key = self._key_of(x, text, views)
        if key != self._key:
            self._key, self._graph, self._out = key, None, None
        elif self._graph is None and rotations is not self._chunk and x.is_cuda:
            self._record((x, timestep, rotations), text, views)
        self._chunk = rotations
        if self._graph is None:
            return self._run(x, timestep, rotations, text, views)
        for buffer, value in zip(self._inputs, (x, timestep, rotations), strict=True):
            buffer.copy_(value)
        self._graph.replay()
        return None if self._out is None else self._out.clone()  # the next replay overwrites it

    def _key_of(self, x: Tensor, text: Sequence[KeysValues], views: Sequence[LayerView]) -> object:
        """Everything that a recording depends on."""
        words = [tensor.data_ptr() for pair in text for tensor in pair]
        return x.shape, words, [view.facts for view in views], self._state()

    def _record(self, inputs: tuple[Tensor, ...], text: Sequence[KeysValues], views: Sequence[LayerView]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread may be decoding
            self._out = self._run(*self._inputs, text, views)
        self._graph = graph
