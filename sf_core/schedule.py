"""The flow-matching schedule: timesteps, sigmas, the warped few-step list, x0 from flow.

A noisy latent is ``x_t = (1 - sigma) * x0 + sigma * noise`` and the network predicts the flow
``noise - x0``. Timesteps are ``1000 * sigma``. Source: Self Forcing, ``utils/scheduler.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

TRAIN_STEPS = 1000
_WITH_FLOAT64 = {"cpu", "cuda"}  # kinds of devices


def declare_without_float64(kind: str) -> None:
    """Note that the devices of a kind, such as "cuda", have no float64 here. For a host that knows its devices."""
    _WITH_FLOAT64.discard(kind)


def wide_dtype(device: torch.device) -> torch.dtype:
    """float64 on CPUs and CUDA GPUs, float32 elsewhere: MPS, Intel's Arc GPUs and DirectML have no float64.

    A host may know better: some devices that call themselves CUDA have none either; see `declare_without_float64`.

    In float32 the results differ only by rounding: timesteps are at most `TRAIN_STEPS`.
    """
    return torch.float64 if device.type in _WITH_FLOAT64 else torch.float32


class FlowSchedule:
    """The 1000 training timesteps under one shift, noisiest first.

    Tables are on the CPU and lookups return Python numbers, so no step waits for the device. A timestep between two
    entries maps to the nearest one, as in the reference; timestep 0 therefore maps to the smallest sigma of the table
    (0.005 at shift 5), not to zero.
    """

    def __init__(self, shift: float = 5.0) -> None:
        if not shift > 0:
            raise ValueError(
                f"shift is {shift}; it must be greater than 0 (5 as trained, 8 in the reference's web demo)"
            )
        self.shift = float(shift)
        linear = torch.linspace(1.0, 0.0, TRAIN_STEPS + 1)[:-1]
        self.sigmas = shift * linear / (1 + (shift - 1) * linear)  # [1000] float32
        self.timesteps = TRAIN_STEPS * self.sigmas  # [1000] float32

    def warp(self, steps: Sequence[int]) -> tuple[float, ...]:
        """The shifted timesteps of nominal ``steps`` (1000 = pure noise): 1000, 750 at shift 5 -> 1000, 937.5."""
        table = torch.cat([self.timesteps, torch.zeros(1)])
        return tuple(float(table[TRAIN_STEPS - step]) for step in steps)

    def sigma(self, timestep: float) -> float:
        """Sigma of the table entry nearest to ``timestep``."""
        nearest = torch.argmin((self.timesteps - timestep).abs())
        return float(self.sigmas[nearest])

    def sigmas_for(self, timestep: Tensor, x: Tensor) -> Tensor:
        """Sigmas of timesteps [B] or [B, F], in a shape that multiplies ``x`` [B, C, F, H, W], on its device.

        The lookup runs on the device of ``timestep``; on the CPU it waits for no other device.
        """
        nearest = (self.timesteps.to(timestep.device) - timestep.unsqueeze(-1)).abs().argmin(dim=-1)
        sigmas = self.sigmas.to(timestep.device)[nearest]
        frames = sigmas if sigmas.ndim == 2 else sigmas.unsqueeze(1)
        return frames[:, None, :, None, None].to(x.device)

    def first_noise(self, noise: Tensor, timestep: float) -> Tensor:
        """What a chunk begins with at its first ``timestep``: the noise itself, which is taken for pure."""
        return noise

    def add_noise(self, x0: Tensor, noise: Tensor, timestep: float | Tensor) -> Tensor:
        """``x0`` at the noise level of ``timestep`` (a scalar, [B] or [B, F]), in the dtype of ``noise``."""
        sigma = self._sigma(timestep, x0)
        return ((1 - sigma) * x0 + sigma * noise).to(noise.dtype)

    def to_x0(self, x: Tensor, flow: Tensor, timestep: float | Tensor) -> Tensor:
        """The clean latents that ``flow`` predicts at ``x``; computed wide, returned in the dtype of ``x``."""
        wide = wide_dtype(x.device)
        return (x.to(wide) - self._sigma(timestep, x) * flow.to(wide)).to(x.dtype)

    def to_flow(self, x: Tensor, x0: Tensor, timestep: float | Tensor) -> Tensor:
        """The flow that leads from ``x`` to ``x0``: the inverse of `to_x0`."""
        wide = wide_dtype(x.device)
        return ((x.to(wide) - x0.to(wide)) / self._sigma(timestep, x)).to(x.dtype)

    def _sigma(self, timestep: float | Tensor, x: Tensor) -> float | Tensor:
        return self.sigmas_for(timestep, x) if isinstance(timestep, Tensor) else self.sigma(timestep)


@lru_cache(maxsize=32)
def flow_schedule(shift: float) -> FlowSchedule:
    """The schedule of one shift, built once."""
    return FlowSchedule(shift)


class ExactSchedule(FlowSchedule):
    """Noise levels that are timesteps / 1000, without table and lookup. Source: Causal-rCM's inference.

    Latents are noised and cleaned wide, and the first noise is scaled by its own level.
    """

    def sigma(self, timestep: float) -> float:
        """Sigma of ``timestep``."""
        return timestep / TRAIN_STEPS

    def sigmas_for(self, timestep: Tensor, x: Tensor) -> Tensor:
        """See `FlowSchedule.sigmas_for`."""
        sigmas = (timestep.to(wide_dtype(timestep.device)) / TRAIN_STEPS).to(x.device)
        frames = sigmas if sigmas.ndim == 2 else sigmas.unsqueeze(1)
        return frames[:, None, :, None, None]

    def first_noise(self, noise: Tensor, timestep: float) -> Tensor:
        """The noise at its level, which is below 1."""
        return (noise.to(wide_dtype(noise.device)) * self.sigma(timestep)).to(noise.dtype)

    def add_noise(self, x0: Tensor, noise: Tensor, timestep: float | Tensor) -> Tensor:
        """See `FlowSchedule.add_noise`."""
        wide = wide_dtype(x0.device)
        return super().add_noise(x0.to(wide), noise.to(wide), timestep).to(noise.dtype)


EXACT = ExactSchedule()
