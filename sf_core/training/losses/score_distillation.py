"""What the distribution-matching losses have in common: noise levels, scores, the critic's own loss."""

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
    """How noisy a video is when it is judged: drawn uniformly, warped by ``shift``, kept within ``bounds``.

    ts_schedule: not below the timestep that the rollout's exit step led to; ts_schedule_max: nor above the one it came
    from (the GAN of the paper). Both as nominal timesteps, before the warp.
    """

    shift: float = 5.0
    bounds: tuple[float, float] = (0.02 * TRAIN_STEPS, 0.98 * TRAIN_STEPS)
    ts_schedule: bool = False
    ts_schedule_max: bool = False

    def timestep(self, rollout: Rollout, given: Tensor | None, rng: torch.Generator | None) -> Tensor:
        """One timestep [B] a video, on the CPU or where ``given`` lies.

        given: integers stand for the draw, before warp and bounds; floating point for the noise level itself.
        [B], [B, 1], or [B, F] of which the first column counts.
        """
        batch = rollout.latents.shape[0]
        if given is None:
            low = rollout.timestep_to if self.ts_schedule else None
            high = rollout.timestep_from if self.ts_schedule_max else None
            given = torch.randint(low or 0, TRAIN_STEPS if high is None else high, (batch,), generator=rng)
        given = given.reshape(batch, -1)[:, 0] if given.ndim else given.expand(batch)
        if given.is_floating_point():
            return given
        part = given / TRAIN_STEPS
        return (self.shift * part / (1 + (self.shift - 1) * part) * TRAIN_STEPS).clamp(*self.bounds)


def drawn(given: Tensor | None, like: Tensor, rng: torch.Generator | None) -> Tensor:
    """The noise that was given, or a new one: drawn on the CPU, so that it is the same whatever the device."""
    noise = torch.randn(like.shape, generator=rng) if given is None else given
    return noise.to(like.device, torch.float32)


def guided(x0: Tensor, x0_negative: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance as Self Forcing counts it: 3.0 here is what others call a scale of 4.0."""
    return x0 + guidance * (x0 - x0_negative)


@dataclass(frozen=True)
class ScoreDistillation:
    """A generator judged by two diffusion models: ``real`` knows the data, ``fake`` the generator's own videos.

    Both predict the flow of a whole noisy video, bidirectionally. ``fake`` (the critic) is trained along with the
    generator, by `critic_loss`.

    guidance, fake_guidance: of the two scores; see `guided`.
    shift: of the schedule that adds the noise, and of the noise levels.
    score_shift: of the schedule by which a score's flow is read as x0. The reference has 8 here and 5 above, looked up
        as the nearest entry, a small inconsistency; None is consistent: as ``shift``.
    levels: None: `NoiseLevels` of ``shift``.
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
        return flow_schedule(self.shift)

    def critic_loss(
        self,
        rollout: Rollout,
        prompt: Tensor,
        timestep: Tensor | None = None,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Loss:
        """Flow matching of ``fake`` on the generator's video, whose own gradient is not followed.

        timestep: see `NoiseLevels.timestep`; noise: like the latents. What is None is drawn from ``rng``.
        """
        x = rollout.latents.detach()
        timestep, noise = self._timestep(rollout, timestep, rng), drawn(noise, x, rng)
        noisy = self.schedule.add_noise(x, noise, timestep)
        x0 = self._x0(self.fake, noisy, timestep, prompt)
        loss = F.mse_loss(self.schedule.to_flow(noisy, x0, timestep), noise - x)
        return Loss(loss, {"critic_loss": loss.detach(), "critic_timestep": timestep.mean()})

    def _timestep(self, rollout: Rollout, given: Tensor | None, rng: torch.Generator | None) -> Tensor:
        return (self.levels or NoiseLevels(self.shift)).timestep(rollout, given, rng)

    def _noisy(
        self, rollout: Rollout, timestep: Tensor | None, noise: Tensor | None, rng: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        timestep = self._timestep(rollout, timestep, rng)
        return self.schedule.add_noise(rollout.latents, drawn(noise, rollout.latents, rng), timestep), timestep

    def _x0(self, model: ScoreModel, noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        schedule = flow_schedule(self.shift if self.score_shift is None else self.score_shift)
        return schedule.to_x0(noisy, model(noisy, timestep.to(noisy.device), text), timestep)

    def _scores(self, noisy: Tensor, timestep: Tensor, prompt: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """x0 as the data and as the generator's videos would have it."""

        def score(model: ScoreModel, guidance: float) -> Tensor:
            x0 = self._x0(model, noisy, timestep, prompt)
            return guided(x0, self._x0(model, noisy, timestep, negative), guidance) if guidance else x0

        fake = score(self.fake, self.fake_guidance)
        return score(self.real, self.guidance), fake
