"""The stage that trains a generator on its own rollouts (or as a baseline), together with its critic."""

from __future__ import annotations

import torch
from torch import Tensor

from ...message import Message
from ...noise import SeededNoise
from ..cost.memory import RolloutMemory, rollout_bytes
from ..data.shuffled import Shuffled
from ..engine.learner import Learner
from ..engine.run_log import RunLog
from ..losses.discriminator import Discriminator
from ..losses.dmd import DMD
from ..losses.forced_rollout import forced_rollout
from ..losses.gan import GAN
from ..losses.loss import Loss
from ..losses.score_distillation import NoiseLevels
from ..losses.sid import SiD
from ..rollouts import Rollout, rollout
from ..stage_settings import SelfForcingStage
from .base import StageRun, make_sampler
from .run_context import RunContext

GENERATOR, CRITIC = 0, 1  # roles of `StageRun.microbatches`


class SelfForcingTraining(StageRun):
    """Training of generator and critic.

    A step is one update of the critic. The generator is updated before every ``ratio``-th of them, the first included.

    Each network starts from the first file that exists. Generator: the result of an earlier such stage, the recipe's
    generator, the causal start, the teacher. Critic: that of an earlier such stage, the recipe's critic, the teacher.
    """

    makes = "model"
    spec: SelfForcingStage

    def __init__(self, spec: SelfForcingStage, context: RunContext, number: int, run_log: RunLog) -> None:
        super().__init__(spec, context, number, run_log)
        self.generator = context.transformer("model", "generator", "causal", "teacher").requires_grad_(True)
        self.critic = context.transformer("critic", "teacher").requires_grad_(True)
        for model in (self.generator, self.critic):
            model.gradient_checkpointing = spec.checkpointing
        self.loss, judge = self._loss()
        updates = -(-spec.steps // spec.ratio)
        average = context.group.frozen_copy(self.generator) if spec.optimizer.ema else None
        self.learners = {
            "generator": Learner("generator", self.generator, spec.optimizer, updates, average, context.group),
            "critic": Learner("critic", judge, spec.critic, spec.steps, group=context.group),
        }
        needs_videos = spec.loss == "gan" or spec.context_frames or spec.videos != "rollouts"
        self.store = context.latents(run_log.progress(Message("encoding videos"))) if needs_videos else None
        self.order = Shuffled(len(context.prompts), context.seed(number)) if self.store is None else None
        self.former = Shuffled(len(context.prompts), context.seed(number, 0, 4))  # of rollouts whose prompt changes
        self.negative = context.text([context.recipe.negative])
        self.vae = context.vae if context.has_network("vae") else None
        self._check_lengths()
        self.sampler = make_sampler(context)
        if spec.videos == "rollouts":
            run_log.message(f"a rollout and its backward pass: {self._memory().describe()}")

    def _loss(self) -> tuple[DMD | SiD | GAN, torch.nn.Module]:
        """Build the loss; also return the network that is trained as its critic."""
        spec, context = self.spec, self.context
        shift = context.config.shift
        levels = NoiseLevels(shift, ts_schedule=spec.ts_schedule, ts_schedule_max=spec.ts_schedule_max)
        if spec.loss == "gan":
            judge = context.group.shard(
                Discriminator(self.critic, with_time=spec.relativistic, seed=context.seed(self.number))
            )
            weights = (spec.generator_weight, spec.discriminator_weight, spec.r1_weight, spec.r2_weight)
            return GAN(judge, shift, spec.relativistic, *weights, spec.sigma, spec.sigma, levels), judge
        half = context.recipe.dtype == "bfloat16"
        real = context.transformer("teacher", dtype=torch.bfloat16 if half else torch.float32)
        if spec.loss == "sid":
            return SiD(real, self.critic, spec.guidance, shift, spec.score_shift, 0.0, levels, spec.alpha), self.critic
        return DMD(real, self.critic, spec.guidance, shift, spec.score_shift, 0.0, levels), self.critic

    def _check_lengths(self) -> None:
        longest, frames = self.spec.max_frames or 0, self.context.recipe.frames
        if longest > frames and self.vae is None:
            raise ValueError(f"max_frames is {longest}, more than {frames}: that needs a vae, to encode a frame anew")
        if longest and (longest < frames or (longest - frames) % self.context.config.chunk_frames):
            raise ValueError(f"max_frames is {longest}; expected {frames} and whole chunks more")
        if self.spec.switches and longest == frames:
            raise ValueError(f"switches needs longer rollouts than {frames} latent frames: raise max_frames")

    def _memory(self) -> RolloutMemory:
        spec, recipe = self.spec, self.context.recipe
        dtype = torch.bfloat16 if recipe.dtype == "bfloat16" else torch.float32
        frames = spec.max_frames or recipe.frames
        return rollout_bytes(
            self.generator.arch,
            self.context.config,
            self.context.latent_size,
            spec.batch,
            frames,
            dtype,
            spec.checkpointing,
            recipe.frames,
        )

    def step(self, index: int) -> dict[str, Tensor]:
        """Update the critic, and before every ``ratio``-th update the generator."""
        values: dict[str, Tensor] = {}
        if index % self.spec.ratio == 0:
            number = index // self.spec.ratio
            values |= self.learners["generator"].update(self.microbatches(number, GENERATOR, self._generator_loss))
        return values | self.learners["critic"].update(self.microbatches(index, CRITIC, self._critic_loss))

    def _generator_loss(self, number: int, rng: torch.Generator) -> Loss:
        video, text, real = self._roll_out(number, GENERATOR, rng)
        if isinstance(self.loss, GAN):
            assert real is not None
            return self.loss.generator_loss(video, text, rng=rng, real=real)
        return self.loss.generator_loss(video, text, self.negative, rng=rng)

    def _critic_loss(self, number: int, rng: torch.Generator) -> Loss:
        with torch.no_grad():
            video, text, real = self._roll_out(number, CRITIC, rng)
        if isinstance(self.loss, GAN):
            assert real is not None
            return self.loss.critic_loss(video, text, rng=rng, real=real)
        return self.loss.critic_loss(video, text, rng=rng)

    def _roll_out(self, number: int, role: int, rng: torch.Generator) -> tuple[Rollout, Tensor, Tensor | None]:
        """Return a batch of rollouts, their text, and the given videos if the loss or the context needs them."""
        context, spec = self.context, self.spec
        real: Tensor | None = None
        prompts: list[str] = []
        if self.store is not None:
            seed = context.seed(self.number, role)
            latents, prompts = self.store.batch(number, spec.batch, seed)
            real = latents.to(context.device)
        elif self.order is not None:
            prompts = self._prompts(self.order, number, role)
        text = context.text(prompts)
        if spec.videos != "rollouts":
            assert real is not None
            return forced_rollout(self.generator, text, real, context.config, spec.videos, rng=rng), text, real
        # the number of passes is drawn once per update, because all ranks must make each sharded pass together
        first = number - number % spec.accumulate
        shared = rng if number == first else context.generator(self.number, first, role)
        frames, switches = self._length(shared)
        video = rollout(
            self.generator,
            text,
            SeededNoise(context.seed(self.number, number, 2 + role)),
            context.config,
            frames=frames,
            context=None if real is None or not spec.context_frames else real[:, :, : spec.context_frames],
            rng=shared,
            vae=self.vae,
            clip_frames=context.recipe.frames,
            kv_gradient=spec.kv_gradient,
            latent_size=context.latent_size,
            prompt_before=context.text(self._prompts(self.former, number, role)) if switches else None,
        )
        return video, text, real

    def _prompts(self, order: Shuffled, number: int, role: int) -> list[str]:
        """Return the prompts of a batch; critic and generator take different ones."""
        first = (2 * number + role) * self.spec.batch
        return [self.context.prompts.prompts[i] for i in order.indices(first, self.spec.batch)]

    def _length(self, rng: torch.Generator) -> tuple[int, bool]:
        """Draw the length of a rollout, and whether its prompt changes."""
        frames, chunk = self.context.recipe.frames, self.context.config.chunk_frames
        more = ((self.spec.max_frames or frames) - frames) // chunk
        if not self.spec.switches:
            return frames + chunk * int(torch.randint(more + 1, (1,), generator=rng)), False
        if float(torch.rand(1, generator=rng)) >= self.spec.switches:
            return frames, False
        return frames + chunk * int(torch.randint(1, more + 1, (1,), generator=rng)), True

    def show(self, step: int) -> None:
        """Write rollouts of the sample prompts."""
        self.show_rollouts(self.learners["generator"].result, self.sampler, step)

    def finish(self) -> None:
        """Write the critic and the generator."""
        self.save_transformer("critic", self.critic)
        self.save_transformer("model", self.learners["generator"].result)
