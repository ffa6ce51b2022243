"""Noise addressed by (seed, batch element, chunk, step).

The same address gives the same noise on every device, in any order. torch's global random state does not change.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

MAX_SEED = 2**64 - 1


class NoiseSource(Protocol):
    """A source of noise [B, C, F, H, W] for a sampled chunk, counted from 0, and a step.

    Step 0 is the chunk's initial noise. Step k > 0 is the noise that is added before denoising step k.
    """

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """The noise of a chunk and a step."""
        ...


def noise_key(seed: int, element: int, chunk: int, step: int) -> int:
    """64-bit BLAKE2b of the four numbers, each packed as a little-endian unsigned 64-bit integer."""
    packed = struct.pack("<4Q", seed, element, chunk, step)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class SeededNoise:
    """Standard normal noise, float32: one draw of torch's CPU generator for each address.

    torch's CPU generator (Mersenne Twister) reads the low 32 bits of the 64-bit key.
    """

    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}; expected a whole number from 0 to {MAX_SEED}")

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """The noise of a chunk and a step."""
        draws = []
        for element in range(shape[0]):
            generator = torch.Generator("cpu").manual_seed(noise_key(self.seed, element, chunk, step))
            draws.append(torch.randn(shape[1:], generator=generator, dtype=torch.float32))
        return torch.stack(draws)
