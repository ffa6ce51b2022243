"""The teacher's trajectories, solved once and kept on disk like the latents of videos."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from ...model.wan import CausalWan
from ..data.latent_store import LatentStore, Progress, encode_clips
from ..losses.ode_regression import ode_trajectory
from ..recipe import CausalStage
from .run_context import Parts


class _Solved:
    """A source of "clips" that are trajectories already; states lie one behind the other along the channels."""

    def __init__(self, spec: CausalStage, parts: Parts) -> None:
        self.spec, self.parts = spec, parts
        self.teacher = parts.transformer("teacher", shard=False)
        self.prompts = parts.prompts.batch(0, spec.trajectories)
        self.shape = (1, self.teacher.arch.in_dim, parts.recipe.frames, *parts.latent_size)

    def __len__(self) -> int:
        return self.spec.trajectories

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        spec, parts, prompt = self.spec, self.parts, self.prompts[index]
        noise = torch.randn(self.shape, generator=parts.generator(index, 2)).to(parts.device)
        with parts.autocast():
            states = ode_trajectory(
                self.teacher,
                parts.text([prompt]),
                parts.text([parts.recipe.negative]),
                noise,
                parts.config,
                spec.solver_steps,
                spec.solver_shift,
                spec.guidance,
            )
        return states[0].flatten(0, 1).float(), prompt

    @staticmethod
    def encode(frames: Tensor) -> Tensor:
        return frames


def make_trajectories(spec: CausalStage, parts: Parts, progress: Progress) -> LatentStore:
    """Solve them, or go on where that was broken off."""
    source = _Solved(spec, parts)
    settings = [spec.trajectories, spec.solver_steps, spec.solver_shift, spec.guidance, parts.recipe.seed]
    key = f"trajectories {json.dumps(settings)} {source.teacher.fingerprint}"
    return encode_clips(source, source, parts.folder / "trajectories", key, progress=progress, group=parts.group)


def as_states(rows: Tensor, model: CausalWan) -> Tensor:
    """Rows of the store [B, (S + 1) * C, F, H, W] as trajectories [B, S + 1, C, F, H, W]."""
    return rows.unflatten(1, (-1, model.arch.in_dim))
