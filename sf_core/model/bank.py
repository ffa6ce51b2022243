"""A bank of frames that keeps what the prompt looks at most, after they left the window. Source: MemFlow's inference.

Before a chunk, the first latent frame of the chunk before it enters the bank. As long as there are free places, the
chunks of one interval share a place, so that the newest of them holds it. In a full bank the frame with the lowest
score gives way at each chunk: the others are ordered by score, the best first, and the new frame comes last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BankRule:
    """The bank's size.

    Attributes:
        frames: Places, a latent frame each.
        interval: Chunks that share a place while there are free ones.
        chunk: Latent frames of a chunk.
    """

    frames: int
    interval: int
    chunk: int

    def chunks(self, start: int, scene: int) -> int:
        """The number of chunks of the scene before latent frame ``start``."""
        return -(-(start - scene) // self.chunk)

    def filled(self, start: int, scene: int) -> int:
        """The number of filled places that a chunk at latent frame ``start`` sees."""
        return min(self.frames, -(-self.chunks(start, scene) // self.interval))

    def place(self, start: int, scene: int) -> int | None:
        """The place that the chunk at ``start`` enters once it is finished; None: the bank is full."""
        place = self.chunks(start, scene) // self.interval
        return place if place < self.frames else None


def keep_best(keys: Tensor, values: Tensor, text_keys: Tensor, new: tuple[Tensor, Tensor]) -> None:
    """Let the frame that ``text_keys`` look at least give way to ``new``, in place.

    The score of a frame is the mean of text keys times its keys over rows, heads and tokens. The batch is scored
    element by element.

    Args:
        keys: The full bank [B, frames * tokens, heads, D]; ``values`` likewise.
        values: See ``keys``.
        text_keys: Keys of the prompt, its padding included [B, rows, heads, D].
        new: Keys and values of one frame [B, tokens, heads, D].
    """
    unit = new[0].shape[1]
    frames = keys.shape[1] // unit
    framed = keys.unflatten(1, (frames, unit))
    # a mean of products is the product of means: over rows for the text, over tokens for the frame
    scores = torch.einsum("bhd,bfhd->bf", text_keys.float().mean(1), framed.float().mean(2))
    best = scores.topk(frames - 1, dim=1).indices  # in falling order
    for bank, newest in ((keys, new[0]), (values, new[1])):
        framed = bank.unflatten(1, (frames, unit))
        rows = best[:, :, None, None, None].expand(-1, -1, *framed.shape[2:])
        kept = framed.gather(1, rows).flatten(1, 2)
        bank[:, : (frames - 1) * unit] = kept
        bank[:, (frames - 1) * unit :] = newest
