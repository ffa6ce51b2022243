"""The stage that trains a generator on its own rollouts (or as a baseline), and the critic that goes along."""

from __future__ import annotations

import torch
from torch import Tensor

from ...noise import SeededNoise
from ..cost.memory import RolloutMemory, rollout_bytes
from ..data.shuffled import Shuffled
from ..engine.learner import Learner
from ..engine.run_log import Report
from ..losses.discriminator import Discriminator
from ..losses.dmd import DMD
from ..losses.forced_rollout import forced_rollout
from ..losses.gan import GAN
from ..losses.loss import Loss
from ..losses.score_distillation import NoiseLevels
from ..losses.sid import SiD
from ..recipe import SelfForcingStage
from ..rollouts import Rollout, rollout
from .base import StageRun, sampler
from .run_context import Parts

GENERATOR, CRITIC = 0, 1  # roles of a step's draws


class SelfForcingTraining(StageRun):
    """Steps are the critic's; the generator has its own before the first of every ``ratio`` of them.

    The generator begins as what an earlier such stage left, the recipe's, the causal start, or the teacher; the critic
    as an earlier one, the recipe's, or the teacher.
    """

    makes = "model"
    spec: SelfForcingStage

    def __init__(self, spec: SelfForcingStage, parts: Parts, number: int, report: Report) -> None:
        super().__init__(spec, parts, number, report)
        self.generator = parts.transformer("model", "generator", "causal", "teacher").requires_grad_(True)
        self.critic = parts.transformer("critic", "teacher").requires_grad_(True)
        for model in (self.generator, self.critic):
            model.gradient_checkpointing = spec.checkpointing
        self.loss, judge = self._loss()
        updates = -(-spec.steps // spec.ratio)
        average = parts.group.twin(self.generator) if spec.optimizer.ema else None
        self.learners = {
            "generator": Learner("generator", self.generator, spec.optimizer, updates, average, parts.group),
            "critic": Learner("critic", judge, spec.critic, spec.steps, group=parts.group),
        }
        needs_videos = spec.loss == "gan" or spec.context_frames or spec.videos != "rollouts"
        self.store = parts.latents(report.progress("encoding videos")) if needs_videos else None
        self.order = Shuffled(len(parts.prompts), parts.seed(number)) if self.store is None else None
        self.negative = parts.text([parts.recipe.negative])
        self.vae = parts.vae if parts.has("vae") else None
        self._check_lengths()
        self.sampler = sampler(parts)
        if spec.videos == "rollouts":
            report.message(f"a rollout and its backward pass: {self._memory().describe()}")

    def _loss(self) -> tuple[DMD | SiD | GAN, torch.nn.Module]:
        """The loss, and the network that learns as its critic."""
        spec, parts = self.spec, self.parts
        shift = parts.config.shift
        levels = NoiseLevels(shift, ts_schedule=spec.ts_schedule, ts_schedule_max=spec.ts_schedule_max)
        if spec.loss == "gan":
            judge = parts.group.shard(
                Discriminator(self.critic, with_time=spec.relativistic, seed=parts.seed(self.number))
            )
            weights = (spec.generator_weight, spec.discriminator_weight, spec.r1_weight, spec.r2_weight)
            return GAN(judge, shift, spec.relativistic, *weights, spec.sigma, spec.sigma, levels), judge
        half = parts.recipe.dtype == "bfloat16"
        real = parts.transformer("teacher", dtype=torch.bfloat16 if half else torch.float32)
        if spec.loss == "sid":
            return SiD(real, self.critic, spec.guidance, shift, spec.score_shift, 0.0, levels, spec.alpha), self.critic
        return DMD(real, self.critic, spec.guidance, shift, spec.score_shift, 0.0, levels), self.critic

    def _check_lengths(self) -> None:
        longest, frames = self.spec.max_frames or 0, self.parts.recipe.frames
        if longest > frames and self.vae is None:
            raise ValueError(f"max_frames is {longest}, more than {frames}: that needs a vae, to encode a frame anew")
        if longest and (longest < frames or (longest - frames) % self.parts.config.chunk_frames):
            raise ValueError(f"max_frames is {longest}; expected {frames} and whole chunks more")

    def _memory(self) -> RolloutMemory:
        spec, recipe = self.spec, self.parts.recipe
        dtype = torch.bfloat16 if recipe.dtype == "bfloat16" else torch.float32
        frames = spec.max_frames or recipe.frames
        return rollout_bytes(
            self.generator.arch,
            self.parts.config,
            self.parts.latent_size,
            spec.batch,
            frames,
            dtype,
            spec.checkpointing,
            recipe.frames,
        )

    def step(self, index: int) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        if index % self.spec.ratio == 0:
            number = index // self.spec.ratio
            values |= self.learners["generator"].update(self.micro(number, GENERATOR, self._generator_loss))
        return values | self.learners["critic"].update(self.micro(index, CRITIC, self._critic_loss))

    def _generator_loss(self, number: int, rng: torch.Generator) -> Loss:
        made, text, real = self._roll_out(number, GENERATOR, rng)
        if isinstance(self.loss, GAN):
            assert real is not None
            return self.loss.generator_loss(made, text, rng=rng, real=real)
        return self.loss.generator_loss(made, text, self.negative, rng=rng)

    def _critic_loss(self, number: int, rng: torch.Generator) -> Loss:
        with torch.no_grad():
            made, text, real = self._roll_out(number, CRITIC, rng)
        if isinstance(self.loss, GAN):
            assert real is not None
            return self.loss.critic_loss(made, text, rng=rng, real=real)
        return self.loss.critic_loss(made, text, rng=rng)

    def _roll_out(self, number: int, role: int, rng: torch.Generator) -> tuple[Rollout, Tensor, Tensor | None]:
        """A batch of rollouts, their prompts, and real videos where the loss or the start needs some."""
        parts, spec = self.parts, self.spec
        real: Tensor | None = None
        prompts: list[str] = []
        if self.store is not None:
            seed = parts.seed(self.number, role)
            latents, prompts = self.store.batch(number, spec.batch, seed)
            real = latents.to(parts.device)
        elif self.order is not None:
            # the critic's prompts are others than the generator's
            first = (2 * number + role) * spec.batch
            prompts = [parts.prompts.prompts[i] for i in self.order.indices(first, spec.batch)]
        text = parts.text(prompts)
        if spec.videos != "rollouts":
            assert real is not None
            return forced_rollout(self.generator, text, real, parts.config, spec.videos, rng=rng), text, real
        # how many passes it takes is drawn once an update: processes that share it make each pass together
        first = number - number % spec.accumulate
        common = rng if number == first else parts.generator(self.number, first, role)
        made = rollout(
            self.generator,
            text,
            SeededNoise(parts.seed(self.number, number, 2 + role)),
            parts.config,
            frames=self._frames(common),
            context=None if real is None or not spec.context_frames else real[:, :, : spec.context_frames],
            rng=common,
            vae=self.vae,
            clip_frames=parts.recipe.frames,
            kv_gradient=spec.kv_gradient,
            latent_size=parts.latent_size,
        )
        return made, text, real

    def _frames(self, rng: torch.Generator) -> int:
        """How long this rollout is: the training length and up to ``max_frames``, in whole chunks."""
        frames, chunk = self.parts.recipe.frames, self.parts.config.chunk_frames
        more = ((self.spec.max_frames or frames) - frames) // chunk
        return frames + chunk * int(torch.randint(more + 1, (1,), generator=rng))

    def show(self, step: int) -> None:
        self.show_rollouts(self.learners["generator"].result, self.sampler, step)

    def finish(self) -> None:
        self.save_transformer("critic", self.critic)
        self.save_transformer("model", self.learners["generator"].result)
