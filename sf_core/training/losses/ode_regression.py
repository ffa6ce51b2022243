"""The causal start of Self Forcing: a few-step causal model learns to land where the teacher's sampler lands.

Source: CausVid (arXiv 2412.07772), section 4.3: solve the teacher's ODE from noise, keep the states at the student's
denoising steps, and let the student predict the end from any of them, a level of its own for each chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from ...config import RolloutConfig
from ...model.sequence_forward import SequenceForward
from ...schedule import flow_schedule
from .flow_matching import draw_per_chunk
from .loss import Loss
from .score_distillation import ScoreModel, guided


@dataclass(frozen=True)
class ODERegression:
    """config: denoising steps, chunks, window and shift of the rollout that is trained for."""

    config: RolloutConfig = field(default_factory=RolloutConfig)

    def loss(
        self,
        model: SequenceForward,
        trajectories: Tensor,
        prompt: Tensor,
        index: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Loss:
        """trajectories: [B, S + 1, C, F, H, W], states at the S denoising steps and the end (`ode_trajectory`).

        index: [B, F], which state each frame is given, equal within a chunk; the last is clean and only a past for
        others. None: drawn from ``rng``. Raises ValueError if the states are not as many as the steps and the end.
        """
        config, schedule = self.config, flow_schedule(self.config.shift)
        steps = config.timesteps(config.frames_of_block(0))
        batch, states, _, frames = trajectories.shape[:4]
        if states != len(steps) + 1:
            raise ValueError(f"{states} states a trajectory; expected {len(steps)} denoising steps and the end")
        index = draw_per_chunk(config, batch, frames, states, rng) if index is None else index
        timestep = torch.tensor([*steps, 0.0])[index.cpu()]
        where = index.to(trajectories.device)[:, None, None, :, None, None].expand_as(trajectories[:, :1])
        x = trajectories.gather(1, where).squeeze(1)
        flow = model.predict(
            x,
            timestep.to(x.device),
            prompt,
            config.chunk_frames,
            config.first_chunk_frames,
            config.window_frames,
        )
        error = (schedule.to_x0(x, flow, timestep) - trajectories[:, -1]).square().mean(dim=(1, 3, 4))
        noisy = (index < len(steps)).to(error)
        loss = (error * noisy).sum() / noisy.sum().clamp(min=1)
        return Loss(loss, {"ode_loss": loss.detach()})


@torch.no_grad()
def ode_trajectory(
    teacher: ScoreModel,
    prompt: Tensor,
    negative: Tensor,
    noise: Tensor,
    config: RolloutConfig,
    steps: int = 48,
    shift: float = 8.0,
    guidance: float = 5.0,
) -> Tensor:
    """The teacher's way from ``noise`` [B, C, F, H, W] to a video: states [B, S + 1, C, F, H, W].

    Euler's method over ``steps`` sigmas of ``shift``, with guidance counted as in `guided` (5.0: a scale of 6.0).
    Of the states those next to the S denoising steps of ``config`` are kept, brought to exactly those sigmas along
    the flow, and the end.
    """
    wanted = [float(sigma) / 1000 for sigma in config.timesteps(config.frames_of_block(0))]
    linear = torch.linspace(1.0, 0.0, steps + 1)
    sigmas = [float(sigma) for sigma in shift * linear / (1 + (shift - 1) * linear)]
    x = noise
    kept: list[Tensor] = []
    for sigma, following in pairwise(sigmas):
        timestep = torch.full((x.shape[0],), 1000 * sigma, device=x.device)
        flow = teacher(x, timestep, prompt)
        if guidance:
            flow = guided(flow, teacher(x, timestep, negative), guidance)
        while len(kept) < len(wanted) and wanted[len(kept)] >= following:
            kept.append(x + (wanted[len(kept)] - sigma) * flow)
        x = x + (following - sigma) * flow
    return torch.stack([*kept, x], dim=1)
