"""Number formats in which a cache keeps the keys and values of its ring.

A format says which tensors a latent frame takes, and turns keys or values [B, frames, tokens, heads, D] into them and
back. Codes come with a scale, rounded to the cache's dtype before the codes are made, so that decoding is exact up to
the codes. Everything is elementwise or a minimum or maximum: the same input gives the same bits, on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from ..rollout_rules import KV_DTYPES

LARGEST_GROUP, SMALLEST_GROUP = 128, 32  # tokens that share a scale for each channel
Part = tuple[tuple[int, ...], torch.dtype]  # shape of one frame's tensor, and its dtype
New = Callable[[tuple[int, ...], torch.dtype], Tensor]  # zeros of a shape and dtype


class FrameFormat(Protocol):
    """How frames of keys, or of values, are kept."""

    def parts(self, tokens: int, heads: int, width: int, dtype: torch.dtype) -> list[Part]:
        """The tensors of one frame of ``tokens`` tokens, whose keys are ``dtype`` and ``width`` wide a head."""

    def encode(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Keys or values [B, frames, tokens, heads, D] as the tensors [B, frames, ...] of `parts`."""

    def decode(self, parts: Sequence[Tensor], out: Tensor) -> None:
        """Write the frames that ``parts`` hold into ``out`` [B, frames, tokens, heads, D]."""


@dataclass(frozen=True)
class PerToken:
    """One code a number, and one scale for each head and token.

    Attributes:
        dtype: Of the codes.
        largest: The largest code.
    """

    dtype: torch.dtype
    largest: float

    def parts(self, tokens: int, heads: int, width: int, dtype: torch.dtype) -> list[Part]:
        """See `FrameFormat.parts`."""
        return [((tokens, heads, width), self.dtype), ((tokens, heads, 1), dtype)]

    def encode(self, frames: Tensor) -> tuple[Tensor, ...]:
        """See `FrameFormat.encode`."""
        scale = _scale(frames.abs().amax(-1, keepdim=True).float() / self.largest, frames.dtype)
        codes = frames.float() / scale.float()
        if not self.dtype.is_floating_point:
            codes = codes.round_()
        return codes.clamp_(-self.largest, self.largest).to(self.dtype), scale

    def decode(self, parts: Sequence[Tensor], out: Tensor) -> None:
        """See `FrameFormat.decode`."""
        codes, scale = parts
        out.copy_(codes).mul_(scale)  # in two steps: a product of two dtypes would take a third tensor on a CPU


@dataclass(frozen=True)
class FourBits:
    """Codes from 0 to 15, two a byte, between a lowest number and the highest.

    Attributes:
        per_channel: Whether they share them along the tokens of a group, channel by channel, and not within each
            head and token. Keys have few channels that are large in all tokens (KIVI, arXiv 2402.02750).
    """

    per_channel: bool

    def parts(self, tokens: int, heads: int, width: int, dtype: torch.dtype) -> list[Part]:
        """See `FrameFormat.parts`."""
        groups = tokens // group_of(tokens)
        ends = (groups, 1, heads, width) if self.per_channel else (groups, group_of(tokens), heads, 1)
        return [((groups, group_of(tokens), heads, width // 2), torch.uint8), (ends, dtype), (ends, dtype)]

    def encode(self, frames: Tensor) -> tuple[Tensor, ...]:
        """See `FrameFormat.encode`."""
        grouped = self._grouped(frames)
        along = 3 if self.per_channel else -1
        low = grouped.amin(along, keepdim=True)
        scale = _scale((grouped.amax(along, keepdim=True).float() - low.float()) / 15, frames.dtype)
        codes = (grouped.float() - low.float()).div_(scale.float()).round_().clamp_(0, 15).to(torch.uint8)
        first, second = codes.chunk(2, dim=-1)
        return first | (second << 4), scale, low

    def decode(self, parts: Sequence[Tensor], out: Tensor) -> None:
        """See `FrameFormat.decode`."""
        codes, scale, low = parts
        grouped = self._grouped(out)
        first, second = grouped.chunk(2, dim=-1)
        first.copy_(codes & 15)
        second.copy_(codes >> 4)
        grouped.mul_(scale).add_(low)

    @staticmethod
    def _grouped(frames: Tensor) -> Tensor:
        """[B, frames, tokens, heads, D] -> [B, frames, groups, tokens of a group, heads, D]."""
        return frames.unflatten(2, (-1, group_of(frames.shape[2])))


def group_of(tokens: int) -> int:
    """Tokens of a group: the largest divisor of a frame's up to `LARGEST_GROUP`, or all, if that one is too small."""
    divisor = next(size for size in range(min(tokens, LARGEST_GROUP), 0, -1) if tokens % size == 0)
    return divisor if divisor >= SMALLEST_GROUP else tokens


def _scale(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """``scale`` in the dtype that it is kept in; never 0, so that nothing is divided by 0."""
    return scale.clamp(min=torch.finfo(dtype).tiny).to(dtype)


@dataclass(frozen=True)
class KVFormat:
    """Formats of keys and of values."""

    keys: FrameFormat
    values: FrameFormat

    def frame_bytes(self, tokens: int, heads: int, width: int, dtype: torch.dtype) -> list[int]:
        """Bytes of each tensor of the keys and values of one frame of one layer."""
        parts = [part for one in (self.keys, self.values) for part in one.parts(tokens, heads, width, dtype)]
        return [prod(shape) * kind.itemsize for shape, kind in parts]


_INT8, _FP8 = PerToken(torch.int8, 127), PerToken(torch.float8_e4m3fn, 448)
FORMATS = {
    "fp8": KVFormat(_FP8, _FP8),
    "int8": KVFormat(_INT8, _INT8),
    "int4": KVFormat(FourBits(per_channel=True), FourBits(per_channel=False)),
}
assert tuple(FORMATS) == KV_DTYPES


class StoredFrames:
    """A buffer of frames of one layer's keys, or values, in a format.

    Args:
        kind: The format.
        parts: One tensor [B, frames, ...] for each of the format's.
    """

    def __init__(self, kind: FrameFormat, parts: Sequence[Tensor]) -> None:
        self._kind, self._parts = kind, tuple(parts)

    @staticmethod
    def zeros(
        kind: FrameFormat,
        frames: int,
        batch: int,
        tokens: int,
        heads: int,
        width: int,
        dtype: torch.dtype,
        new: New,
    ) -> StoredFrames:
        """A buffer for ``frames`` frames, of tensors that ``new`` makes; sizes as for `FrameFormat.parts`."""
        parts = kind.parts(tokens, heads, width, dtype)
        return StoredFrames(kind, [new((batch, frames, *one), kind_of_part) for one, kind_of_part in parts])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors [B, frames, ...]."""
        return self._parts

    def put(self, slot: int, frames: Tensor) -> None:
        """Encode ``frames`` [B, frames, tokens, heads, D] into the slots from ``slot`` on."""
        for part, new in zip(self._parts, self._kind.encode(frames), strict=True):
            part[:, slot : slot + frames.shape[1]].copy_(new, non_blocking=True)

    def get(self, slot: int, out: Tensor) -> None:
        """Decode the slots from ``slot`` on into ``out`` [B, frames, tokens, heads, D]."""
        parts = [part[:, slot : slot + out.shape[1]].to(out.device, non_blocking=True) for part in self._parts]
        self._kind.decode(parts, out)

    def copy_of(self, other: StoredFrames, slot: int, count: int) -> None:
        """Copy the ``count`` frames from ``slot`` on from ``other``, where they are in the same slots."""
        for part, theirs in zip(self._parts, other._parts, strict=True):
            part[:, slot : slot + count].copy_(theirs[:, slot : slot + count], non_blocking=True)
