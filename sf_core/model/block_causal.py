"""The block-causal attention pattern of a whole video without a cache."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[tuple[int, int], list[tuple[int, int]]]  # query frames, key frames


def chunk_ends(frames: int, chunk: int, first: int | None) -> list[int]:
    """End of each chunk in a rollout of ``frames``; the last chunk may be shorter."""
    ends = [min(first or chunk, frames)]
    while ends[-1] < frames:
        ends.append(min(ends[-1] + chunk, frames))
    return ends


def attention_spans(ends: Sequence[int], frames: int, window: int | None, with_clean: bool) -> list[Span]:
    """Spans of frames that each chunk attends to. Clean frames, if any, precede the noisy ones in the sequence."""
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
