"""Video to video: a chunk that is made from given latents instead of from noise alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..hashing import digest, tensor_digest
from .archive import StoredLatents

SCHEDULES = ("truncated", "rescaled", "repeated")


@dataclass(frozen=True, eq=False)
class Source:
    """What the next chunk is made from.

    Attributes:
        latents: The latents that stand for the chunk in the given video [B, C, F, H, W].
        strength: How much of them is made anew, from 0 (nothing) to 1 (all).
        schedule: ``truncated``: the denoising steps that begin above the noise level ``strength`` are left out.
            ``rescaled``: all steps are taken, at nominal timesteps times ``strength`` (Krea).
            ``repeated``: the last step, which has the least noise, is taken as often as there are steps, each time on
            ``strength`` times the noise that it is told of. For models that know the levels of their own steps alone.
    """

    latents: StoredLatents
    strength: float
    schedule: str

    def timesteps(self, config: RolloutConfig, chunk: int) -> tuple[float, ...]:
        """Denoising timesteps of a chunk, see `RolloutConfig.timesteps`. None at all: it is its source."""
        if self.strength == 0:
            return ()
        if self.schedule == "rescaled":
            return config.timesteps(chunk, self.strength)
        steps = config.timesteps(chunk)
        if self.schedule == "repeated":
            return steps[-1:] * len(steps)
        level = config.noise_levels.sigma
        return tuple(step for step in steps if level(step) <= self.strength)

    @property
    def noise_share(self) -> float:
        """Share of a step's noise level that its noisy latents have."""
        return self.strength if self.schedule == "repeated" else 1.0

    @property
    def digest(self) -> bytes:
        """Digest of everything that the chunk is made from."""
        return digest(tensor_digest(self.latents.on_cpu()), repr((self.strength, self.schedule)).encode())


def check_source(
    config: RolloutConfig, latents: Tensor, strength: float, schedule: str, shape: tuple[int, int, int, int, int]
) -> None:
    """Check a source of `Session.with_source`.

    Args:
        config: Rollout settings.
        latents: The source.
        strength: See `Source`.
        schedule: See `Source`.
        shape: Of the next chunk [B, C, F, H, W].

    Raises:
        ValueError: The next chunk cannot be made from it.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}; expected a number from 0 (the source as it is) to 1 (all anew)")
    batch, *rest = shape
    if latents.ndim != 5 or list(latents.shape[1:]) != rest or latents.shape[0] not in (1, batch):
        raise ValueError(
            f"source latents have the shape {list(latents.shape)}; the next chunk takes "
            f"[{batch} or 1, {', '.join(str(size) for size in rest)}]"
        )
    if not torch.isfinite(latents).all():
        raise ValueError("the source latents hold NaN or Inf; check what encoded them")
    check_takes_source(config)


def check_takes_source(config: RolloutConfig) -> None:
    """Raise ValueError if chunks of these settings begin with noise alone."""
    if config.schedule == "rolling":
        raise ValueError(
            "schedule='rolling' has several chunks in flight at once, none of which begins with a source: "
            "take settings with schedule='chunk'"
        )
    if config.solver == "unipc":
        raise ValueError(
            "solver='unipc' begins each chunk with noise alone, not with a source: take settings with solver='renoise'"
        )
