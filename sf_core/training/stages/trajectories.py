"""The teacher's trajectories, solved once and stored on disk like the latents of videos."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from ...model.wan import CausalWan
from ..data.latent_store import EncodeProgress, LatentStore, encode_clips
from ..losses.ode_regression import ode_trajectory
from ..stage_settings import CausalStage
from .run_context import RunContext


class _TrajectorySource:
    """A source of trajectories in place of clips; the states are concatenated along the channels."""

    def __init__(self, spec: CausalStage, context: RunContext) -> None:
        self.spec, self.context = spec, context
        self.teacher = context.transformer("teacher", shard=False)
        self.prompts = context.prompts.batch(0, spec.trajectories)
        self.shape = (1, self.teacher.arch.in_dim, context.recipe.frames, *context.latent_size)

    def __len__(self) -> int:
        return self.spec.trajectories

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        spec, context, prompt = self.spec, self.context, self.prompts[index]
        noise = torch.randn(self.shape, generator=context.generator(index, 2)).to(context.device)
        with context.autocast():
            states = ode_trajectory(
                self.teacher,
                context.text([prompt]),
                context.text([context.recipe.negative]),
                noise,
                context.config,
                spec.solver_steps,
                spec.solver_shift,
                spec.guidance,
            )
        return states[0].flatten(0, 1).float(), prompt

    @staticmethod
    def encode(frames: Tensor) -> Tensor:
        """Return ``frames``: trajectories are latents already."""
        return frames


def make_trajectories(spec: CausalStage, context: RunContext, progress: EncodeProgress) -> LatentStore:
    """Solve the trajectories that the run's folder does not have yet."""
    source = _TrajectorySource(spec, context)
    settings = [spec.trajectories, spec.solver_steps, spec.solver_shift, spec.guidance, context.recipe.seed]
    key = f"trajectories {json.dumps(settings)} {source.teacher.fingerprint}"
    return encode_clips(source, source, context.folder / "trajectories", key, progress=progress, group=context.group)


def as_states(rows: Tensor, model: CausalWan) -> Tensor:
    """Split rows of the store [B, (S + 1) * C, F, H, W] into states [B, S + 1, C, F, H, W]."""
    return rows.unflatten(1, (-1, model.arch.in_dim))
