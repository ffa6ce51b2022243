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
from .score_distillation import NoiseLevels, noise_or_random


@dataclass(frozen=True)
class GAN:
    """The losses of a generator and its discriminator on noisy videos.

    Attributes:
        discriminator: (noisy video, timestep [B], text) -> logits [B, 1]; usually a `Discriminator`.
        shift: Shift of the schedule that adds the noise, and of the noise levels.
        relativistic: Judge each generated video against a real one, instead of each by itself.
        generator_weight: Weight of the generator's loss.
        discriminator_weight: Weight of the discriminator's loss.
        r1_weight: Weight of the penalty on the discriminator's slope at real videos; 0 turns it off.
        r2_weight: Weight of the penalty on the discriminator's slope at generated videos; 0 turns it off.
        r1_sigma: Standard deviation of the noise that measures the slope at real videos.
        r2_sigma: Standard deviation of the noise that measures the slope at generated videos.
        levels: Noise levels; None: `NoiseLevels` with ``shift``.
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
        """The schedule that adds the noise."""
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
        """Return the generator's loss. Freeze the discriminator, or it gets a gradient too.

        Args:
            rollout: The generator's video.
            prompt: Text embeddings [B or 1, rows, text_dim].
            negative: Unused, since there is no guidance; all losses take the same arguments.
            timestep: See `NoiseLevels.timestep`; None draws it from ``rng``.
            noise: Two tensors, for the rollout and for ``real``; None draws them from ``rng``.
            rng: CPU generator; None: torch's global one.
            real: Latents [B, C, F, H, W] of real videos.

        Raises:
            ValueError: If ``real`` and the rollout differ in shape.
        """
        generated = rollout.latents
        _check_real(real, generated)
        timestep = self._timestep(rollout, timestep, rng)
        noises = [noise_or_random(None if noise is None else noise[i], generated, rng) for i in range(2)]
        videos = (generated, real.to(generated))
        noisy = [self.schedule.add_noise(x, n, timestep) for x, n in zip(videos, noises, strict=True)]
        generated_logit, real_logit = self._logits(noisy[0], noisy[1], timestep, prompt)
        loss = F.softplus(-(generated_logit - real_logit if self.relativistic else generated_logit)).mean()
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
        """Return the discriminator's loss plus half of the R1 and R2 penalties.

        Args:
            rollout: The generator's video, whose gradient is not followed.
            prompt: Text embeddings [B or 1, rows, text_dim].
            timestep: See `NoiseLevels.timestep`; None draws it from ``rng``.
            noise: The noise that both videos share, then the perturbations of R1 and R2, of those that have a weight;
                None draws them from ``rng``.
            rng: CPU generator; None: torch's global one.
            real: Latents [B, C, F, H, W] of real videos.

        Raises:
            ValueError: If ``real`` and the rollout differ in shape.
        """
        generated = rollout.latents.detach()
        _check_real(real, generated)
        timestep = self._timestep(rollout, timestep, rng)
        shared = noise_or_random(None if noise is None else noise[0], generated, rng)
        noisy_generated = self.schedule.add_noise(generated, shared, timestep)
        noisy_real = self.schedule.add_noise(real.to(generated), shared, timestep)
        generated_logit, real_logit = self._logits(noisy_generated, noisy_real, timestep, prompt)
        if self.relativistic:
            loss = F.softplus(generated_logit - real_logit).mean()
        else:
            loss = F.softplus(-real_logit).mean() + F.softplus(generated_logit).mean()
        loss = loss * self.discriminator_weight
        logs = {"gan_critic_loss": loss.detach(), "real_logit": real_logit.mean(), "made_logit": generated_logit.mean()}
        perturbations = list(noise[1:]) if noise is not None else None
        for name, weight, sigma, video, logit in (
            ("r1", self.r1_weight, self.r1_sigma, noisy_real, real_logit),
            ("r2", self.r2_weight, self.r2_sigma, noisy_generated, generated_logit),
        ):
            if weight:
                perturbation = noise_or_random(perturbations.pop(0) if perturbations else None, video, rng)
                moved = self.discriminator(video + sigma * perturbation, timestep.to(video.device), prompt)
                slope = (moved - logit) / sigma
                penalty = weight * slope.square().mean()
                loss, logs[name] = loss + 0.5 * penalty, penalty
        return Loss(loss, {name: value.detach() for name, value in logs.items()})

    def _timestep(self, rollout: Rollout, timestep: Tensor | None, rng: torch.Generator | None) -> Tensor:
        return (self.levels or NoiseLevels(self.shift)).timestep(rollout, timestep, rng)

    def _logits(self, generated: Tensor, real: Tensor, timestep: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of both videos, computed in one batch."""
        text = prompt.expand(generated.shape[0], -1, -1)
        timesteps = torch.cat([timestep, timestep]).to(generated.device)
        logits = self.discriminator(torch.cat([generated, real]), timesteps, torch.cat([text, text]))
        generated_logit, real_logit = logits.chunk(2)
        return generated_logit, real_logit


def _check_real(real: Tensor, generated: Tensor) -> None:
    if real.shape != generated.shape:
        raise ValueError(
            f"the real latents have the shape {list(real.shape)}, the rollout {list(generated.shape)}: "
            "both need the same"
        )
