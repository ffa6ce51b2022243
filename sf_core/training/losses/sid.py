"""Score identity distillation: a Fisher divergence between video distributions.

Source: SiD (arXiv 2404.04057), as Self Forcing applies it to whole rollouts.
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
class SiD(ScoreDistillation):
    """The SiD loss on rollouts. The other arguments are those of `ScoreDistillation`.

    The gradient reaches the video through both score networks. Freeze their parameters, or they get a gradient too.

    Attributes:
        alpha: Weight of the squared distance of the scores, which is subtracted.
    """

    alpha: float = 1.0

    def generator_loss(
        self,
        rollout: Rollout,
        prompt: Tensor,
        negative: Tensor,
        timestep: Tensor | None = None,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Loss:
        """Return the loss of a rollout. The arguments are those of `DMD.generator_loss`."""
        x = rollout.latents
        noisy, timestep = self._noisy(rollout, timestep, noise, rng)
        real, fake = self._scores(noisy, timestep, prompt, negative)
        distance = (x - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True).detach()
        real, fake, clean = (part.to(wide_dtype(x.device)) for part in (real, fake, x))
        difference = real - fake
        error = torch.nan_to_num(difference * ((real - clean) - self.alpha * difference) / distance)
        loss = masked_mean(error, rollout.gradient_mask)
        return Loss(loss, {"sid_loss": loss.detach(), "timestep": timestep.mean()})
