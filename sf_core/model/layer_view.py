"""What a layer's pass attends to: its own slots in a cache, and what is behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from torch import Tensor

from .attention import Attention
from .attention_parts import attend_to_parts

KeysValues = tuple[Tensor, Tensor]  # keys and values of one layer, [B, tokens, heads, D] each


class LayerView(KeysValues):
    """Keys and values of one layer, in buffers of the cache. The slots of the pass come first."""

    def write(self, keys: Tensor, values: Tensor) -> None:
        """Overwrite the slots of the pass with its new keys and values [B, tokens, heads, D]."""
        for buffer, new in zip(self, (keys, values), strict=True):
            buffer[:, : new.shape[1]] = new

    def attend(self, q: Tensor, attention: Attention) -> Tensor:
        """Attention of ``q`` [B, tokens, heads, D] to everything that the pass sees."""
        return attention(q, *self)

    @property
    def facts(self) -> object:
        """Everything that a recorded pass depends on: buffers and sizes."""
        return [(tensor.data_ptr(), tensor.shape) for tensor in self]


class BlockView(LayerView):
    """A view with more keys and values behind it, which are decoded block by block into one buffer.

    Their attention is merged block by block, with kernels of torch's own (attention_parts.py).
    """

    blocks: Callable[[], Iterable[KeysValues]]
    behind: tuple[Sequence[Tensor], object]  # the tensors that hold them, and which frames of those they are

    @staticmethod
    def over(
        keys: Tensor,
        values: Tensor,
        blocks: Callable[[], Iterable[KeysValues]],
        behind: tuple[Sequence[Tensor], object],
    ) -> BlockView:
        """A view of ``keys`` and ``values``, and of ``blocks`` behind them, which are frames of ``behind``."""
        view = BlockView((keys, values))
        view.blocks, view.behind = blocks, behind
        return view

    def attend(self, q: Tensor, attention: Attention) -> Tensor:
        """See `LayerView.attend`; ``attention`` is not called."""
        return attend_to_parts(q, chain([(self[0], self[1])], self.blocks()))

    @property
    def facts(self) -> object:
        """See `LayerView.facts`."""
        tensors, frames = self.behind
        return super().facts, [tensor.data_ptr() for tensor in tensors], frames
