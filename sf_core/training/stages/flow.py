"""The stages that learn from given latents: the teacher, and the causal start."""

from __future__ import annotations

import torch
from torch import Tensor

from ...model.architecture import WanArchitecture
from ..engine.learner import Learner
from ..engine.networks import new_transformer
from ..engine.run_log import Report
from ..losses.flow_matching import DiffusionForcing, FlowMatching, TeacherForcing
from ..losses.loss import Loss
from ..losses.ode_regression import ODERegression, ode_trajectory
from ..recipe import CausalStage, TeacherStage
from .base import StageRun, sampler
from .run_context import Parts
from .trajectories import as_states, make_trajectories

SOLVER_STEPS = 24  # of the teacher's samples, and
SHOWN_GUIDANCE = 1.0  # their guidance


class TeacherTraining(StageRun):
    """A new bidirectional model, or the one that an earlier stage or the recipe has."""

    makes = "teacher"
    spec: TeacherStage

    def __init__(self, spec: TeacherStage, parts: Parts, number: int, report: Report) -> None:
        super().__init__(spec, parts, number, report)
        if parts.has("teacher"):
            self.model = parts.transformer("teacher")
        else:
            model = new_transformer(self._architecture(), parts.seed(number)).to(parts.device)
            model.attention = parts.attention
            self.model = parts.group.shard(model)
        self.model.requires_grad_(True)
        self.store = parts.latents(report.progress("encoding videos"))
        self.frames = self._clip_frames()
        self.loss = FlowMatching(spec.shift, spec.weighted)
        average = parts.group.twin(self.model) if spec.optimizer.ema else None
        self.learners = {"teacher": Learner("teacher", self.model, spec.optimizer, spec.steps, average, parts.group)}

    def _architecture(self) -> WanArchitecture:
        size, parts = self.parts.recipe.model, self.parts
        if size is None:
            raise ValueError("a new teacher needs a [model] in the recipe; or name a teacher under [files]")
        channels = parts.vae.channels
        return WanArchitecture(
            dim=size.dim,
            ffn_dim=size.ffn_dim,
            num_layers=size.layers,
            num_heads=size.heads,
            freq_dim=size.freq_dim,
            text_dim=parts.embed(parts.recipe.negative).shape[2],
            text_len=parts.tiny_text.text_len if parts.recipe.files.text_encoder is None else 512,
            in_dim=channels,
            out_dim=channels,
        )

    def _clip_frames(self) -> int:
        """How much of each clip is learnt from. A VAE that is causal gives the same latents for the beginning alone."""
        wanted, there = self.spec.frames, self.store.shape[1]
        if wanted is not None and wanted > there:
            raise ValueError(
                f"a teacher stage has frames = {wanted}; the clips have {there} latent frames (see frames)"
            )
        return wanted or there

    def step(self, index: int) -> dict[str, Tensor]:
        return self.learners["teacher"].update(self.micro(index, 0, self._loss))

    def _loss(self, number: int, rng: torch.Generator) -> Loss:
        latents, captions = self.store.batch(number, self.spec.batch, self.parts.seed(self.number))
        clips = latents[:, :, : self.frames].to(self.parts.device)
        return self.loss.loss(self.model, clips, self.parts.text(captions), rng=rng)

    @torch.no_grad()
    def show(self, step: int) -> None:
        parts, prompts = self.parts, list(self.parts.shown_prompts)
        channels, _, *size = self.store.shape
        shape = (len(prompts), channels, self.frames, *size)
        noise = torch.randn(shape, generator=parts.generator(self.number, 0, 1)).to(parts.device)
        model = self.learners["teacher"].result
        negative = parts.text([parts.recipe.negative])
        states = ode_trajectory(
            model, parts.text(prompts), negative, noise, parts.config, SOLVER_STEPS, self.spec.shift, SHOWN_GUIDANCE
        )
        self.report.sample(self.name, step, parts.vae.decode(states[:, -1]).cpu(), parts.recipe.fps, prompts)

    def finish(self) -> None:
        self.save_transformer("teacher", self.learners["teacher"].result)


class CausalTraining(StageRun):
    """From the teacher's weights to a causal model; a further stage goes on with it."""

    makes = "causal"
    spec: CausalStage

    def __init__(self, spec: CausalStage, parts: Parts, number: int, report: Report) -> None:
        super().__init__(spec, parts, number, report)
        self.model = parts.transformer("causal", "teacher").requires_grad_(True)
        self.model.gradient_checkpointing = spec.checkpointing
        self.regression = ODERegression(parts.config) if spec.by == "ode" else None
        kind = TeacherForcing if spec.by == "teacher-forcing" else DiffusionForcing
        self.forcing = kind(parts.config.shift, spec.weighted, parts.config)
        if self.regression:
            self.store = make_trajectories(spec, parts, report.progress("solving the teacher's trajectories"))
        else:
            self.store = parts.latents(report.progress("encoding videos"))
        self.sampler = sampler(parts)
        average = parts.group.twin(self.model) if spec.optimizer.ema else None
        self.learners = {"causal": Learner("causal", self.model, spec.optimizer, spec.steps, average, parts.group)}

    def step(self, index: int) -> dict[str, Tensor]:
        return self.learners["causal"].update(self.micro(index, 0, self._loss))

    def _loss(self, number: int, rng: torch.Generator) -> Loss:
        parts = self.parts
        latents, captions = self.store.batch(number, self.spec.batch, parts.seed(self.number))
        latents, text = latents.to(parts.device), parts.text(captions)
        if self.regression:
            return self.regression.loss(self.model, as_states(latents, self.model), text, rng=rng)
        return self.forcing.loss(self.model, latents, text, rng=rng)

    def show(self, step: int) -> None:
        self.show_rollouts(self.learners["causal"].result, self.sampler, step)

    def finish(self) -> None:
        self.save_transformer("causal", self.learners["causal"].result)
