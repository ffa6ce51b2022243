"""The stage that trains a small Wan VAE on a world's frames."""

from __future__ import annotations

import torch
from torch import Tensor

from ...vae.loading import load_vae
from ..data.shuffled import Shuffled
from ..engine.learner import Learner
from ..engine.run_log import RunLog
from ..losses.autoencoder import AutoencoderLoss, measure_latents, new_vae
from ..losses.loss import Loss
from ..stage_settings import VAEStage
from .base import StageRun
from .run_context import RunContext

MEASURED_CLIPS = 256  # of the training length, for the mean and standard deviation of the latents
SAMPLE_CLIPS = 8


class VAETraining(StageRun):
    """Training of a small Wan VAE: a new one, or that of an earlier stage or of the recipe."""

    makes = "vae"
    spec: VAEStage

    def __init__(self, spec: VAEStage, context: RunContext, number: int, run_log: RunLog) -> None:
        super().__init__(spec, context, number, run_log)
        vae = (
            load_vae(context.find_network("vae"))
            if spec.decoder_only or context.has_network("vae")
            else new_vae(spec.dim, seed=context.seed(number))
        )
        self.vae = vae.to(context.device)
        for name, parameter in vae.named_parameters():
            parameter.requires_grad_(not spec.decoder_only or name.startswith(("decoder.", "conv2.")))
        self.world = context.world(spec.frames)
        self.order = Shuffled(len(self.world), context.seed(number))
        self.loss = AutoencoderLoss(spec.kl)
        self.learners = {"vae": Learner("vae", vae, spec.optimizer, spec.steps, group=context.group)}

    def step(self, index: int) -> dict[str, Tensor]:
        """Update the VAE once."""
        return self.learners["vae"].update(self.microbatches(index, 0, self._loss))

    def _loss(self, number: int, rng: torch.Generator) -> Loss:
        frames = torch.stack([self.world[i][0] for i in self.order.batch(number, self.spec.batch)])
        return self.loss.loss(self.vae, frames.to(self.context.device), rng=rng)

    @torch.no_grad()
    def show(self, step: int) -> None:
        """Write clips, each with its reconstruction to its right."""
        factor = self.vae.temporal_factor
        world = self.context.world(1 + (self.context.recipe.frames - 1) * factor)
        samples = [world[i] for i in range(min(SAMPLE_CLIPS, len(world)))]
        frames = torch.stack([clip for clip, _ in samples])
        decoded = self.vae.decode(self.vae.encode(frames.to(self.context.device))).cpu()
        pairs = torch.stack([frames, decoded], dim=1).flatten(0, 1)
        captions = [caption for _, caption in samples for _ in range(2)]
        self.run_log.sample(self.name, step, pairs, self.context.recipe.fps, captions)

    def finish(self) -> None:
        """Measure the latents' scale, unless the encoder was frozen, and write the VAE."""
        if not self.spec.decoder_only:
            world = self.context.world(1 + (self.context.recipe.frames - 1) * self.vae.temporal_factor)
            clips = (world[i][0][None].to(self.context.device) for i in range(min(MEASURED_CLIPS, len(world))))
            measure_latents(self.vae, clips)
        self.context.group.write(self.context.network_path("vae"), self.vae.state_dict(), self.training_metadata())
