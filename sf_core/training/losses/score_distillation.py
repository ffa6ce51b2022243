"""Shared parts of the distribution-matching losses: noise levels, scores, the critic's loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...schedule import TRAIN_STEPS, FlowSchedule, flow_schedule
from ..rollouts import Rollout
from .loss import Loss

ScoreModel = Callable[[Tensor, Tensor, Tensor], Tensor]  # (noisy [B, C, F, H, W], timestep [B], text) -> flow


@dataclass(frozen=True)
class NoiseLevels:
    """The distribution of noise levels at which videos are judged: uniform, then warped by ``shift`` and clamped.

    Attributes:
        shift: Shift of the warp.
        bounds: Lowest and highest timestep.
        ts_schedule: Draw no timestep below ``timestep_to`` of the rollout (nominal, before the warp).
        ts_schedule_max: Draw no timestep above ``timestep_from`` of the rollout, as the GAN of the paper does.
    """

    shift: float = 5.0
    bounds: tuple[float, float] = (0.02 * TRAIN_STEPS, 0.98 * TRAIN_STEPS)
    ts_schedule: bool = False
    ts_schedule_max: bool = False

    def timestep(self, rollout: Rollout, timestep: Tensor | None, rng: torch.Generator | None) -> Tensor:
        """Return a timestep per video [B], on the CPU or on the device of ``timestep``.

        Args:
            rollout: The videos to judge.
            timestep: [B], [B, 1], or [B, F], of which the first column counts. Integers are draws before the warp;
                floating point numbers are timesteps. None draws them from ``rng``.
            rng: CPU generator; None: torch's global one.
        """
        batch = rollout.latents.shape[0]
        if timestep is None:
            low = rollout.timestep_to if self.ts_schedule else None
            high = rollout.timestep_from if self.ts_schedule_max else None
            timestep = torch.randint(low or 0, TRAIN_STEPS if high is None else high, (batch,), generator=rng)
        timestep = timestep.reshape(batch, -1)[:, 0] if timestep.ndim else timestep.expand(batch)
        if timestep.is_floating_point():
            return timestep
        sigma = timestep / TRAIN_STEPS
        return (self.shift * sigma / (1 + (self.shift - 1) * sigma) * TRAIN_STEPS).clamp(*self.bounds)


def noise_or_random(noise: Tensor | None, like: Tensor, rng: torch.Generator | None) -> Tensor:
    """Return ``noise``, or new noise shaped like ``like``, drawn on the CPU so that it is the same on every device."""
    noise = torch.randn(like.shape, generator=rng) if noise is None else noise
    return noise.to(like.device, torch.float32)


def guided(x0: Tensor, x0_negative: Tensor, guidance: float) -> Tensor:
    """Apply classifier-free guidance as Self Forcing counts it: 3.0 here is a guidance scale of 4.0 elsewhere."""
    return x0 + guidance * (x0 - x0_negative)


@dataclass(frozen=True)
class ScoreDistillation:
    """A generator judged by two diffusion models, one of the data and one of the generator's videos.

    Both predict the flow of a whole noisy video, bidirectionally.

    Attributes:
        real: Score model of the data: the teacher.
        fake: Score model of the generator's videos: the critic, trained along with the generator by `critic_loss`.
        guidance: Guidance of ``real``; see `guided`.
        shift: Shift of the schedule that adds the noise, and of the noise levels.
        score_shift: Shift of the schedule that turns a score model's flow into x0; None: ``shift``. The reference has
            8 here and 5 for ``shift``, looked up as the nearest entry, which is slightly inconsistent.
        fake_guidance: Guidance of ``fake``.
        levels: Noise levels; None: `NoiseLevels` with ``shift``.
    """

    real: ScoreModel
    fake: ScoreModel
    guidance: float = 3.0
    shift: float = 5.0
    score_shift: float | None = 8.0
    fake_guidance: float = 0.0
    levels: NoiseLevels | None = None

    @property
    def schedule(self) -> FlowSchedule:
        """The schedule that adds the noise."""
        return flow_schedule(self.shift)

    def critic_loss(
        self,
        rollout: Rollout,
        prompt: Tensor,
        timestep: Tensor | None = None,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Loss:
        """Return the flow matching loss of ``fake`` on the generator's video, whose gradient is not followed.

        Args:
            rollout: The generator's video.
            prompt: Text embeddings [B or 1, rows, text_dim].
            timestep: See `NoiseLevels.timestep`; None draws it from ``rng``.
            noise: Standard normal noise, shaped like the latents; None draws it from ``rng``.
            rng: CPU generator; None: torch's global one.
        """
        x = rollout.latents.detach()
        timestep, noise = self._timestep(rollout, timestep, rng), noise_or_random(noise, x, rng)
        noisy = self.schedule.add_noise(x, noise, timestep)
        x0 = self._x0(self.fake, noisy, timestep, prompt)
        loss = F.mse_loss(self.schedule.to_flow(noisy, x0, timestep), noise - x)
        return Loss(loss, {"critic_loss": loss.detach(), "critic_timestep": timestep.mean()})

    def _timestep(self, rollout: Rollout, timestep: Tensor | None, rng: torch.Generator | None) -> Tensor:
        return (self.levels or NoiseLevels(self.shift)).timestep(rollout, timestep, rng)

    def _noisy(
        self, rollout: Rollout, timestep: Tensor | None, noise: Tensor | None, rng: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        timestep = self._timestep(rollout, timestep, rng)
        return self.schedule.add_noise(
            rollout.latents, noise_or_random(noise, rollout.latents, rng), timestep
        ), timestep

    def _x0(self, model: ScoreModel, noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        schedule = flow_schedule(self.shift if self.score_shift is None else self.score_shift)
        return schedule.to_x0(noisy, model(noisy, timestep.to(noisy.device), text), timestep)

    def _scores(self, noisy: Tensor, timestep: Tensor, prompt: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Return x0 as predicted by ``real`` and by ``fake``."""

        def score(model: ScoreModel, guidance: float) -> Tensor:
            x0 = self._x0(model, noisy, timestep, prompt)
            return guided(x0, self._x0(model, noisy, timestep, negative), guidance) if guidance else x0

        fake = score(self.fake, self.fake_guidance)
        return score(self.real, self.guidance), fake
