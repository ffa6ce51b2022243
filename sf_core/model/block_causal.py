"""Which frames attend to which in a whole video without a cache: the block-causal pattern of a rollout."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[tuple[int, int], list[tuple[int, int]]]  # query frames, key frames


def chunk_ends(frames: int, chunk: int, first: int | None) -> list[int]:
    """Where each chunk ends, as in a rollout of ``frames``; the last chunk may be cut short."""
    ends = [min(first or chunk, frames)]
    while ends[-1] < frames:
        ends.append(min(ends[-1] + chunk, frames))
    return ends


def attention_spans(ends: Sequence[int], frames: int, window: int | None, with_clean: bool) -> list[Span]:
    """Which frames each chunk attends to. With clean frames, they come first in the sequence, then the noisy ones."""
    spans: list[Span] = []
    starts = [0, *ends[:-1]]
    oldest = [0 if window is None else max(0, end - window) for end in ends]
    for start, end, low in zip(starts, ends, oldest, strict=True):
        spans.append(((start, end), [(low, end)]))
    if with_clean:
        for start, end, low in zip(starts, ends, oldest, strict=True):
            own = (frames + start, frames + end)
            spans.append((own, [(min(low, start), start), own]))
    return spans
