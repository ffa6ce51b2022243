"""Predictions of given videos, on which the baselines train a few-step generator in place of its own rollouts.

Each chunk is predicted at one of the denoising steps from a noisy given chunk, all in one pass. With teacher forcing
(as in arXiv 2412.07772) it attends to the clean chunks before it, with diffusion forcing (arXiv 2407.01392) to the
noisy ones. In training neither attends to a chunk of the generator, at inference to nothing else: exposure bias.
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
from .score_distillation import noise_or_random

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
    """Return the generator's prediction of ``latents`` as a `Rollout`, with gradient everywhere.

    Args:
        generator: The few-step generator.
        prompt: Text embeddings [B or 1, rows, text_dim].
        latents: Latents of given videos [B, C, F, H, W].
        config: Rollout settings: denoising steps, chunks and window.
        by: ``teacher-forcing`` or ``diffusion-forcing``.
        noise: Standard normal noise, shaped like ``latents``; None draws it from ``rng``.
        rng: CPU generator, also for the denoising step of each chunk; None: torch's global one.
    """
    schedule = flow_schedule(config.shift)
    steps = torch.tensor(config.timesteps(config.frames_of_block(0)))
    timestep = steps[draw_per_chunk(config, latents.shape[0], latents.shape[2], len(steps), rng)]  # [B, F]
    noisy = schedule.add_noise(latents, noise_or_random(noise, latents, rng), timestep)
    clean = latents if by == "teacher-forcing" else None
    chunks = config.chunk_frames, config.first_chunk_frames, config.window_frames
    flow = generator.predict(noisy, timestep.to(latents.device), prompt, *chunks, clean)
    return Rollout(schedule.to_x0(noisy, flow, timestep), None, None, None, [])
