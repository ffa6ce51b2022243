"""What the baselines train a few-step generator on where Self Forcing has its own rollouts: given videos.

Every chunk is predicted at one of the denoising steps from a noisy given chunk, all in one pass. By teacher forcing
(as in arXiv 2412.07772) it sees the clean chunks before it, by diffusion forcing (arXiv 2407.01392) the noisy ones. So
neither ever sees a chunk that the generator made, and at inference it sees nothing else: exposure bias.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...config import RolloutConfig
from ...model.sequence_forward import SequenceForward
from ...schedule import flow_schedule
from ..rollouts import Rollout
from .flow_matching import draw_per_chunk
from .score_distillation import drawn

Forcing = Literal["teacher-forcing", "diffusion-forcing"]


def forced_rollout(
    generator: SequenceForward,
    prompt: Tensor,
    latents: Tensor,
    config: RolloutConfig,
    by: Forcing,
    noise: Tensor | None = None,
    rng: torch.Generator | None = None,
) -> Rollout:
    """The generator's prediction of ``latents``, with gradient everywhere, in the place of a rollout.

    prompt: text embeddings [B or 1, rows, text_dim]. latents: given, [B, C, F, H, W]. by: see above.
    noise: like the latents. It, if None, and the denoising step that each chunk is predicted at come from ``rng``.
    """
    schedule = flow_schedule(config.shift)
    steps = torch.tensor(config.timesteps(config.frames_of_block(0)))
    timestep = steps[draw_per_chunk(config, latents.shape[0], latents.shape[2], len(steps), rng)]  # [B, F]
    noisy = schedule.add_noise(latents, drawn(noise, latents, rng), timestep)
    clean = latents if by == "teacher-forcing" else None
    chunks = config.chunk_frames, config.first_chunk_frames, config.window_frames
    flow = generator.predict(noisy, timestep.to(latents.device), prompt, *chunks, clean)
    return Rollout(schedule.to_x0(noisy, flow, timestep), None, None, None, [])
