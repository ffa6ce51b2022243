"""Distribution matching distillation: the gradient of a KL divergence between video distributions.

Source: DMD (arXiv 2311.18828), equations 7 and 8, as Self Forcing applies it to whole rollouts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...schedule import wide_dtype
from ..rollouts import Rollout
from .loss import Loss, masked_mean
from .score_distillation import ScoreDistillation


@dataclass(frozen=True)
class DMD(ScoreDistillation):
    """The DMD loss on rollouts. The arguments are those of `ScoreDistillation`."""

    def generator_loss(
        self,
        rollout: Rollout,
        prompt: Tensor,
        negative: Tensor,
        timestep: Tensor | None = None,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Loss:
        """Return ``0.5 * mean(gradient ** 2)``, built so that its gradient is the DMD gradient over the element count.

        The DMD gradient is the difference of the two scores, divided by the mean distance between the video and the
        prediction of ``real``.

        Args:
            rollout: The generator's video.
            prompt: Text embeddings [B or 1, rows, text_dim].
            negative: Text embeddings of the negative prompt, of the same shape.
            timestep: As in `critic_loss`.
            noise: As in `critic_loss`.
            rng: As in `critic_loss`.
        """
        x = rollout.latents
        with torch.no_grad():
            noisy, timestep = self._noisy(rollout, timestep, noise, rng)
            real, fake = self._scores(noisy, timestep, prompt, negative)
            distance = (x - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
            gradient = torch.nan_to_num((fake - real) / distance)
            target = x.to(wide_dtype(x.device)) - gradient
        error = (x.to(target) - target) ** 2
        loss = 0.5 * masked_mean(error, rollout.gradient_mask)
        logs = {"dmd_loss": loss.detach(), "dmd_gradient": gradient.abs().mean(), "timestep": timestep.mean()}
        return Loss(loss, logs)
