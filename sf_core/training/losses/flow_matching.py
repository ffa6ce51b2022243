"""Flow matching on given videos: the teacher's training, and the two causal baselines that Self Forcing compares with.

Teacher forcing (compared in arXiv 2412.07772) denoises each chunk given the clean chunks before it. Diffusion forcing
(arXiv 2407.01392) gives it noisy chunks, each at a noise level of its own. Neither trains on the model's own output.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...config import RolloutConfig
from ...model.block_causal import chunk_ends
from ...model.sequence_forward import SequenceForward
from ...schedule import TRAIN_STEPS, FlowSchedule, flow_schedule
from .loss import Loss
from .score_distillation import noise_or_random


@dataclass(frozen=True)
class _Sample:
    """The inputs of a prediction, and the clean latents and noise that they were made from."""

    noisy: Tensor
    timestep: Tensor
    prompt: Tensor
    latents: Tensor
    noise: Tensor
    rng: torch.Generator | None


@dataclass(frozen=True)
class FlowMatching:
    """Flow matching of a bidirectional model, with one noise level per video.

    Attributes:
        shift: Shift of the schedule.
        weighted: Weight the timesteps by a bell curve, so that middle noise levels count more (as in the reference).
    """

    shift: float = 5.0
    weighted: bool = True

    @property
    def schedule(self) -> FlowSchedule:
        """The schedule that adds the noise."""
        return flow_schedule(self.shift)

    def loss(
        self,
        model: SequenceForward,
        latents: Tensor,
        prompt: Tensor,
        timestep: Tensor | None = None,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Loss:
        """Return the flow matching loss of one batch.

        Args:
            model: The model to train.
            latents: Clean latents [B, C, F, H, W].
            prompt: Text embeddings [B or 1, rows, text_dim].
            timestep: [B]; for causal models [B, F], equal within a chunk. Integers are indices into the schedule's
                table, noisiest first; floating point numbers are timesteps. None draws them from ``rng``.
            noise: Standard normal noise, shaped like ``latents``; None draws it from ``rng``.
            rng: CPU generator; None: torch's global one.
        """
        timestep = self._timestep(latents, timestep, rng)
        noise = noise_or_random(noise, latents, rng)
        noisy = self.schedule.add_noise(latents, noise, timestep)
        flow = self._predict(model, _Sample(noisy, timestep.to(latents.device), prompt, latents, noise, rng))
        error = (flow.float() - (noise - latents)).square().mean(dim=(1, 3, 4))  # [B, F]
        if self.weighted:
            weights = training_weights(self.schedule, timestep)
            error = error * (weights if weights.ndim == 2 else weights.unsqueeze(1)).to(error.device)
        loss = error.mean()
        return Loss(loss, {"flow_loss": loss.detach(), "timestep": timestep.mean()})

    def _timestep(self, latents: Tensor, timestep: Tensor | None, rng: torch.Generator | None) -> Tensor:
        if timestep is None:
            timestep = self._draw(latents, TRAIN_STEPS, rng)
        return timestep if timestep.is_floating_point() else self.schedule.timesteps.to(timestep.device)[timestep]

    def _draw(self, latents: Tensor, count: int, rng: torch.Generator | None) -> Tensor:
        return torch.randint(count, (latents.shape[0],), generator=rng)

    def _predict(self, model: SequenceForward, sample: _Sample) -> Tensor:
        return model.predict(sample.noisy, sample.timestep, sample.prompt)


@dataclass(frozen=True)
class DiffusionForcing(FlowMatching):
    """Flow matching of a causal model, with a noise level per chunk.

    Attributes:
        config: Rollout settings, of which the chunks and the window are used; ``shift`` is not read from it.
    """

    config: RolloutConfig = field(default_factory=RolloutConfig)

    def _draw(self, latents: Tensor, count: int, rng: torch.Generator | None) -> Tensor:
        return draw_per_chunk(self.config, latents.shape[0], latents.shape[2], count, rng)

    def _predict(self, model: SequenceForward, sample: _Sample) -> Tensor:
        return model.predict(sample.noisy, sample.timestep, sample.prompt, *self._chunks)

    @property
    def _chunks(self) -> tuple[int, int | None, int | None]:
        return self.config.chunk_frames, self.config.first_chunk_frames, self.config.window_frames


@dataclass(frozen=True)
class TeacherForcing(DiffusionForcing):
    """Flow matching of a causal model, each chunk given the clean chunks before it, all in one pass.

    Attributes:
        context_noise: Add to the clean chunks a noise level drawn from this many of the schedule's least noisy ones.
            0: they stay clean, at timestep 0.
    """

    context_noise: int = 0

    def _predict(self, model: SequenceForward, sample: _Sample) -> Tensor:
        clean, timestep = sample.latents, torch.zeros(1)
        if self.context_noise:
            index = self._draw(sample.latents, self.context_noise, sample.rng)
            timestep = self.schedule.timesteps[TRAIN_STEPS - 1 - index]
            clean = self.schedule.add_noise(clean, sample.noise, timestep)
        timestep = timestep.to(clean.device)
        return model.predict(sample.noisy, sample.timestep, sample.prompt, *self._chunks, clean, timestep)


def draw_per_chunk(config: RolloutConfig, batch: int, frames: int, count: int, rng: torch.Generator | None) -> Tensor:
    """Return random integers below ``count`` [batch, frames], one per chunk, repeated for its frames."""
    ends = chunk_ends(frames, config.chunk_frames, config.first_chunk_frames)
    sizes = torch.tensor([end - start for start, end in zip([0, *ends], ends, strict=False)])
    return torch.randint(count, (batch, len(ends)), generator=rng).repeat_interleave(sizes, dim=1)


def training_weights(schedule: FlowSchedule, timestep: Tensor) -> Tensor:
    """Return a weight per timestep: a bell curve around the middle, zero at its minimum, 1 on average."""
    bell = torch.exp(-2 * ((schedule.timesteps - TRAIN_STEPS / 2) / TRAIN_STEPS) ** 2)
    weights = bell - bell.min()
    weights = weights * (TRAIN_STEPS / weights.sum())
    nearest = (schedule.timesteps.to(timestep.device) - timestep.unsqueeze(-1)).abs().argmin(dim=-1)
    return weights.to(timestep.device)[nearest]
