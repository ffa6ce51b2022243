"""The stages that train on given latents: the teacher, and the causal start."""

from __future__ import annotations

import torch
from torch import Tensor

from ...message import Message
from ...model.architecture import WanArchitecture
from ..engine.learner import Learner
from ..engine.networks import new_transformer
from ..engine.run_log import RunLog
from ..losses.flow_matching import DiffusionForcing, FlowMatching, TeacherForcing
from ..losses.loss import Loss
from ..losses.ode_regression import ODERegression, ode_trajectory
from ..stage_settings import CausalStage, TeacherStage
from .base import StageRun, make_sampler
from .run_context import RunContext
from .trajectories import as_states, make_trajectories

SOLVER_STEPS = 24  # of the teacher's samples
SAMPLE_GUIDANCE = 1.0


class TeacherTraining(StageRun):
    """Training of a bidirectional model: a new one, or that of an earlier stage or of the recipe."""

    makes = "teacher"
    spec: TeacherStage

    def __init__(self, spec: TeacherStage, context: RunContext, number: int, run_log: RunLog) -> None:
        super().__init__(spec, context, number, run_log)
        if context.has_network("teacher"):
            self.model = context.transformer("teacher")
        else:
            model = new_transformer(self._architecture(), context.seed(number)).to(context.device)
            model.attention = context.attention
            self.model = context.group.shard(model)
        self.model.requires_grad_(True)
        self.store = context.latents(run_log.progress(Message("encoding videos")))
        self.frames = self._clip_frames()
        self.loss = FlowMatching(spec.shift, spec.weighted)
        average = context.group.frozen_copy(self.model) if spec.optimizer.ema else None
        self.learners = {"teacher": Learner("teacher", self.model, spec.optimizer, spec.steps, average, context.group)}

    def _architecture(self) -> WanArchitecture:
        size, context = self.context.recipe.model, self.context
        if size is None:
            raise ValueError("a new teacher needs a [model] in the recipe; or name a teacher under [files]")
        channels = context.vae.channels
        return WanArchitecture(
            dim=size.dim,
            ffn_dim=size.ffn_dim,
            num_layers=size.layers,
            num_heads=size.heads,
            freq_dim=size.freq_dim,
            text_dim=context.embed(context.recipe.negative).shape[2],
            text_len=context.tiny_text.text_len if context.recipe.files.text_encoder is None else 512,
            in_dim=channels,
            out_dim=channels,
        )

    def _clip_frames(self) -> int:
        """Return the latent frames of each clip to train on; a causal VAE's latents do not depend on later frames."""
        wanted, available = self.spec.frames, self.store.shape[1]
        if wanted is not None and wanted > available:
            raise ValueError(
                f"a teacher stage has frames = {wanted}; the clips have {available} latent frames (see frames)"
            )
        return wanted or available

    def step(self, index: int) -> dict[str, Tensor]:
        """Update the model once."""
        return self.learners["teacher"].update(self.microbatches(index, 0, self._loss))

    def _loss(self, number: int, rng: torch.Generator) -> Loss:
        latents, captions = self.store.batch(number, self.spec.batch, self.context.seed(self.number))
        clips = latents[:, :, : self.frames].to(self.context.device)
        return self.loss.loss(self.model, clips, self.context.text(captions), rng=rng)

    @torch.no_grad()
    def show(self, step: int) -> None:
        """Write videos from the teacher's ODE, one per sample prompt."""
        context, prompts = self.context, list(self.context.sample_prompts)
        channels, _, *size = self.store.shape
        shape = (len(prompts), channels, self.frames, *size)
        noise = torch.randn(shape, generator=context.generator(self.number, 0, 1)).to(context.device)
        model = self.learners["teacher"].result
        negative = context.text([context.recipe.negative])
        states = ode_trajectory(
            model,
            context.text(prompts),
            negative,
            noise,
            context.config,
            SOLVER_STEPS,
            self.spec.shift,
            SAMPLE_GUIDANCE,
        )
        self.run_log.sample(self.name, step, context.vae.decode(states[:, -1]).cpu(), context.recipe.fps, prompts)

    def finish(self) -> None:
        """Write the teacher."""
        self.save_transformer("teacher", self.learners["teacher"].result)


class CausalTraining(StageRun):
    """Training of a causal model from the teacher's weights, or from an earlier such stage."""

    makes = "causal"
    spec: CausalStage

    def __init__(self, spec: CausalStage, context: RunContext, number: int, run_log: RunLog) -> None:
        super().__init__(spec, context, number, run_log)
        self.model = context.transformer("causal", "teacher").requires_grad_(True)
        self.model.gradient_checkpointing = spec.checkpointing
        self.regression = ODERegression(context.config) if spec.by == "ode" else None
        kind = TeacherForcing if spec.by == "teacher-forcing" else DiffusionForcing
        self.forcing = kind(context.config.shift, spec.weighted, context.config)
        if self.regression:
            self.store = make_trajectories(
                spec, context, run_log.progress(Message("solving the teacher's trajectories"))
            )
        else:
            self.store = context.latents(run_log.progress(Message("encoding videos")))
        self.sampler = make_sampler(context)
        average = context.group.frozen_copy(self.model) if spec.optimizer.ema else None
        self.learners = {"causal": Learner("causal", self.model, spec.optimizer, spec.steps, average, context.group)}

    def step(self, index: int) -> dict[str, Tensor]:
        """Update the model once."""
        return self.learners["causal"].update(self.microbatches(index, 0, self._loss))

    def _loss(self, number: int, rng: torch.Generator) -> Loss:
        context = self.context
        latents, captions = self.store.batch(number, self.spec.batch, context.seed(self.number))
        latents, text = latents.to(context.device), context.text(captions)
        if self.regression:
            return self.regression.loss(self.model, as_states(latents, self.model), text, rng=rng)
        return self.forcing.loss(self.model, latents, text, rng=rng)

    def show(self, step: int) -> None:
        """Write rollouts of the sample prompts."""
        self.show_rollouts(self.learners["causal"].result, self.sampler, step)

    def finish(self) -> None:
        """Write the causal model."""
        self.save_transformer("causal", self.learners["causal"].result)
