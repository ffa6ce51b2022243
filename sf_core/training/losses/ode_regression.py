"""ODE regression, the causal start of Self Forcing: a few-step causal model learns the end of the teacher's trajectory.

Source: CausVid (arXiv 2412.07772), section 4.3. The teacher's ODE is solved from noise, the states at the student's
denoising steps are stored, and the student predicts the end from any of them, with a noise level per chunk.
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
    """Regression to the end of the teacher's trajectories.

    Attributes:
        config: Rollout settings: denoising steps, chunks, window and shift.
    """

    config: RolloutConfig = field(default_factory=RolloutConfig)

    def loss(
        self,
        model: SequenceForward,
        trajectories: Tensor,
        prompt: Tensor,
        index: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Loss:
        """Return the mean squared error of the predicted ends.

        Args:
            model: The causal model to train.
            trajectories: States at the S denoising steps and the end [B, S + 1, C, F, H, W], from `ode_trajectory`.
            prompt: Text embeddings [B or 1, rows, text_dim].
            index: The state that each frame starts from [B, F], equal within a chunk. The last state is clean: it has
                no error of its own and is only attended to. None draws the states from ``rng``.
            rng: CPU generator; None: torch's global one.

        Raises:
            ValueError: If there are not as many states as denoising steps plus one.
        """
        config, schedule = self.config, flow_schedule(self.config.shift)
        steps = config.timesteps(config.frames_of_block(0))
        batch, states, _, frames = trajectories.shape[:4]
        if states != len(steps) + 1:
            raise ValueError(f"{states} states a trajectory; expected {len(steps)} denoising steps and the end")
        index = draw_per_chunk(config, batch, frames, states, rng) if index is None else index
        timestep = torch.tensor([*steps, 0.0])[index.cpu()]
        state = index.to(trajectories.device)[:, None, None, :, None, None].expand_as(trajectories[:, :1])
        x = trajectories.gather(1, state).squeeze(1)
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
    """Solve the teacher's ODE with Euler's method.

    Args:
        teacher: The bidirectional model.
        prompt: Text embeddings [B or 1, rows, text_dim].
        negative: Text embeddings of the negative prompt, of the same shape.
        noise: The first state [B, C, F, H, W].
        config: Rollout settings, of which the S denoising steps are used.
        steps: Number of Euler steps.
        shift: Shift of the solver's sigmas.
        guidance: Guidance as in `guided`: 5.0 is a scale of 6.0.

    Returns:
        States at the S denoising steps and the end [B, S + 1, C, F, H, W]. The nearest Euler state before each
        denoising step is moved along the flow to exactly its sigma.
    """
    targets = [float(sigma) / 1000 for sigma in config.timesteps(config.frames_of_block(0))]
    linear = torch.linspace(1.0, 0.0, steps + 1)
    sigmas = [float(sigma) for sigma in shift * linear / (1 + (shift - 1) * linear)]
    x = noise
    states: list[Tensor] = []
    for sigma, following in pairwise(sigmas):
        timestep = torch.full((x.shape[0],), 1000 * sigma, device=x.device)
        flow = teacher(x, timestep, prompt)
        if guidance:
            flow = guided(flow, teacher(x, timestep, negative), guidance)
        while len(states) < len(targets) and targets[len(states)] >= following:
            states.append(x + (targets[len(states)] - sigma) * flow)
        x = x + (following - sigma) * flow
    return torch.stack([*states, x], dim=1)
