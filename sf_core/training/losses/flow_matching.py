"""Flow matching on given videos: the teacher's training, and the two causal baselines that Self Forcing is against.

Teacher forcing (arXiv 2412.07772 compares it): each chunk is denoised behind the clean chunks before it. Diffusion
forcing (arXiv 2407.01392): behind chunks that are noisy themselves, each at a level of its own. Neither ever sees what
the model itself makes.
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
from .score_distillation import drawn


@dataclass(frozen=True)
class _Given:
    """What a prediction is made from, and what that came from."""

    noisy: Tensor
    timestep: Tensor
    prompt: Tensor
    latents: Tensor
    noise: Tensor
    rng: torch.Generator | None


@dataclass(frozen=True)
class FlowMatching:
    """A bidirectional model learns the flow at one noise level a video.

    shift: of the schedule. weighted: middling noise levels count more, by a bell over the timesteps (as the reference).
    """

    shift: float = 5.0
    weighted: bool = True

    @property
    def schedule(self) -> FlowSchedule:
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
        """latents: clean, [B, C, F, H, W]. prompt: embeddings [B or 1, rows, text_dim].

        timestep: [B] ([B, F], equal within a chunk, for the causal ones): integers are indices into the schedule's
        table, noisiest first; floating point is the timestep itself. noise: like latents. What is None is drawn from
        ``rng``, on the CPU.
        """
        timestep = self._timestep(latents, timestep, rng)
        noise = drawn(noise, latents, rng)
        noisy = self.schedule.add_noise(latents, noise, timestep)
        given = _Given(noisy, timestep.to(latents.device), prompt, latents, noise, rng)
        flow = self._predict(model, given)
        error = (flow.float() - (noise - latents)).square().mean(dim=(1, 3, 4))  # [B, F]
        if self.weighted:
            weights = training_weights(self.schedule, timestep)
            error = error * (weights if weights.ndim == 2 else weights.unsqueeze(1)).to(error.device)
        loss = error.mean()
        return Loss(loss, {"flow_loss": loss.detach(), "timestep": timestep.mean()})

    def _timestep(self, latents: Tensor, given: Tensor | None, rng: torch.Generator | None) -> Tensor:
        if given is None:
            given = self._draw(latents, TRAIN_STEPS, rng)
        return given if given.is_floating_point() else self.schedule.timesteps.to(given.device)[given]

    def _draw(self, latents: Tensor, count: int, rng: torch.Generator | None) -> Tensor:
        return torch.randint(count, (latents.shape[0],), generator=rng)

    def _predict(self, model: SequenceForward, given: _Given) -> Tensor:
        return model.predict(given.noisy, given.timestep, given.prompt)


@dataclass(frozen=True)
class DiffusionForcing(FlowMatching):
    """A causal model learns the flow of every chunk, each at a noise level of its own.

    config: chunks and window of the rollout that is trained for; its shift does not count here.
    """

    config: RolloutConfig = field(default_factory=RolloutConfig)

    def _draw(self, latents: Tensor, count: int, rng: torch.Generator | None) -> Tensor:
        return draw_per_chunk(self.config, latents.shape[0], latents.shape[2], count, rng)

    def _predict(self, model: SequenceForward, given: _Given) -> Tensor:
        return model.predict(given.noisy, given.timestep, given.prompt, *self._chunks)

    @property
    def _chunks(self) -> tuple[int, int | None, int | None]:
        return self.config.chunk_frames, self.config.first_chunk_frames, self.config.window_frames


@dataclass(frozen=True)
class TeacherForcing(DiffusionForcing):
    """A causal model learns the flow of every chunk behind the clean chunks before it, all in one pass.

    context_noise: how many of the schedule's least noisy levels the "clean" chunks are drawn from; 0: they are clean,
        at timestep 0.
    """

    context_noise: int = 0

    def _predict(self, model: SequenceForward, given: _Given) -> Tensor:
        clean, timestep = given.latents, torch.zeros(1)
        if self.context_noise:
            index = self._draw(given.latents, self.context_noise, given.rng)
            timestep = self.schedule.timesteps[TRAIN_STEPS - 1 - index]
            clean = self.schedule.add_noise(clean, given.noise, timestep)
        timestep = timestep.to(clean.device)
        return model.predict(given.noisy, given.timestep, given.prompt, *self._chunks, clean, timestep)


def draw_per_chunk(config: RolloutConfig, batch: int, frames: int, count: int, rng: torch.Generator | None) -> Tensor:
    """Integers below ``count``, [batch, frames], one a chunk."""
    ends = chunk_ends(frames, config.chunk_frames, config.first_chunk_frames)
    sizes = torch.tensor([end - start for start, end in zip([0, *ends], ends, strict=False)])
    return torch.randint(count, (batch, len(ends)), generator=rng).repeat_interleave(sizes, dim=1)


def training_weights(schedule: FlowSchedule, timestep: Tensor) -> Tensor:
    """How much each timestep counts: a Gaussian bell around the middle, down to zero at the end, 1 on average."""
    bell = torch.exp(-2 * ((schedule.timesteps - TRAIN_STEPS / 2) / TRAIN_STEPS) ** 2)
    weights = bell - bell.min()
    weights = weights * (TRAIN_STEPS / weights.sum())
    nearest = (schedule.timesteps.to(timestep.device) - timestep.unsqueeze(-1)).abs().argmin(dim=-1)
    return weights.to(timestep.device)[nearest]
