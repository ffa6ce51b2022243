"""Adversarial training of a generator: a discriminator compares its videos with real ones, at equal noise.

Source: Self Forcing, appendix; relativistic pairing and the finite-difference R1 and R2 as in R3GAN (arXiv 2501.05441)
and APT (arXiv 2501.08316).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...schedule import FlowSchedule, flow_schedule
from ..rollouts import Rollout
from .loss import Loss
from .score_distillation import NoiseLevels, drawn


@dataclass(frozen=True)
class GAN:
    """A generator judged by a `Discriminator`: (noisy video, timestep [B], text) -> logits [B, 1].

    shift: of the schedule that adds the noise, and of the noise levels (``levels`` None: `NoiseLevels` of it).
    relativistic: a made video is judged against a real one, instead of each by itself.
    generator_weight, discriminator_weight: of the two losses. r1_weight, r2_weight: of the discriminator's slope at
        real and at made videos, found by moving them by noise of ``r1_sigma``, ``r2_sigma``; 0: not used.
    """

    discriminator: Callable[[Tensor, Tensor, Tensor], Tensor]
    shift: float = 5.0
    relativistic: bool = False
    generator_weight: float = 1e-2
    discriminator_weight: float = 1e-2
    r1_weight: float = 0.0
    r2_weight: float = 0.0
    r1_sigma: float = 0.01
    r2_sigma: float = 0.01
    levels: NoiseLevels | None = None

    @property
    def schedule(self) -> FlowSchedule:
        return flow_schedule(self.shift)

    def generator_loss(
        self,
        rollout: Rollout,
        prompt: Tensor,
        negative: Tensor | None = None,
        timestep: Tensor | None = None,
        noise: Sequence[Tensor] | None = None,
        rng: torch.Generator | None = None,
        *,
        real: Tensor,
    ) -> Loss:
        """How far the rollout is from passing for real. Freeze the discriminator, or it gets a gradient too.

        negative: not read, there is no guidance; here so that all losses are called alike. real: latents
        [B, C, F, H, W] of real videos. timestep: see `NoiseLevels.timestep`. noise: two, for the rollout and for
        ``real``. What is None is drawn from ``rng``.
        """
        made = rollout.latents
        _check_real(real, made)
        timestep = self._timestep(rollout, timestep, rng)
        noises = [drawn(None if noise is None else noise[i], made, rng) for i in range(2)]
        noisy = [self.schedule.add_noise(x, n, timestep) for x, n in zip((made, real.to(made)), noises, strict=True)]
        made_logit, real_logit = self._logits(noisy[0], noisy[1], timestep, prompt)
        loss = F.softplus(-(made_logit - real_logit if self.relativistic else made_logit)).mean()
        loss = loss * self.generator_weight
        return Loss(loss, {"gan_generator_loss": loss.detach(), "timestep": timestep.mean()})

    def critic_loss(
        self,
        rollout: Rollout,
        prompt: Tensor,
        timestep: Tensor | None = None,
        noise: Sequence[Tensor] | None = None,
        rng: torch.Generator | None = None,
        *,
        real: Tensor,
    ) -> Loss:
        """The discriminator's loss plus half of R1 and R2.

        noise: one that both videos get, then (as far as they are used) what moves the real and the made one.
        """
        made = rollout.latents.detach()
        _check_real(real, made)
        timestep = self._timestep(rollout, timestep, rng)
        shared = drawn(None if noise is None else noise[0], made, rng)
        noisy_made = self.schedule.add_noise(made, shared, timestep)
        noisy_real = self.schedule.add_noise(real.to(made), shared, timestep)
        made_logit, real_logit = self._logits(noisy_made, noisy_real, timestep, prompt)
        if self.relativistic:
            loss = F.softplus(made_logit - real_logit).mean()
        else:
            loss = F.softplus(-real_logit).mean() + F.softplus(made_logit).mean()
        loss = loss * self.discriminator_weight
        logs = {"gan_critic_loss": loss.detach(), "real_logit": real_logit.mean(), "made_logit": made_logit.mean()}
        moves = list(noise[1:]) if noise is not None else None
        for name, weight, sigma, video, logit in (
            ("r1", self.r1_weight, self.r1_sigma, noisy_real, real_logit),
            ("r2", self.r2_weight, self.r2_sigma, noisy_made, made_logit),
        ):
            if weight:
                moved = video + sigma * drawn(moves.pop(0) if moves else None, video, rng)
                slope = (self.discriminator(moved, timestep.to(made.device), prompt) - logit) / sigma
                penalty = weight * slope.square().mean()
                loss, logs[name] = loss + 0.5 * penalty, penalty
        return Loss(loss, {name: value.detach() for name, value in logs.items()})

    def _timestep(self, rollout: Rollout, given: Tensor | None, rng: torch.Generator | None) -> Tensor:
        return (self.levels or NoiseLevels(self.shift)).timestep(rollout, given, rng)

    def _logits(self, made: Tensor, real: Tensor, timestep: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Of both, in one batch."""
        text = prompt.expand(made.shape[0], -1, -1)
        both = torch.cat([timestep, timestep]).to(made.device)
        logits = self.discriminator(torch.cat([made, real]), both, torch.cat([text, text]))
        made_logit, real_logit = logits.chunk(2)
        return made_logit, real_logit


def _check_real(real: Tensor, made: Tensor) -> None:
    if real.shape != made.shape:
        raise ValueError(
            f"the real latents have the shape {list(real.shape)}, the rollout {list(made.shape)}: both need the same"
        )
