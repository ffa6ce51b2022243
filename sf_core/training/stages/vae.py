"""The stage that trains a small Wan VAE on a world's frames."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ...vae.loading import load_vae
from ..data.shuffled import Shuffled
from ..engine.learner import Learner
from ..engine.run_log import RunLog
from ..losses.autoencoder import AutoencoderLoss, encode_moments, measure_latents, new_vae
from ..losses.loss import Loss
from ..stage_settings import VAEStage
from .base import StageRun
from .run_context import RunContext

MEASURED_CLIPS = 256  # of the training length, for the mean and standard deviation of the latents
SAMPLE_CLIPS = 8
KEPT_CLIPS = 4096  # whose moments a frozen encoder computes once: 40 KB for a clip of 17 frames of 64 x 64


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
        self.loss = AutoencoderLoss(spec.kl, spec.mse, spec.clipped)
        self._moments = lru_cache(KEPT_CLIPS)(self._encode)
        self.learners = {"vae": Learner("vae", vae, spec.optimizer, spec.steps, group=context.group)}

    def step(self, index: int) -> dict[str, Tensor]:
        """Update the VAE once."""
        return self.learners["vae"].update(self.microbatches(index, 0, self._loss))

    def _loss(self, number: int, rng: torch.Generator) -> Loss:
        clips = self.order.batch(number, self.spec.batch)
        frames = torch.stack([self.world[i][0] for i in clips]).to(self.context.device)
        if not self.spec.decoder_only:
            return self.loss.loss(self.vae, frames, rng=rng)
        means, log_variances = zip(*map(self._moments, clips), strict=True)
        return self.loss.loss(self.vae, frames, rng=rng, moments=(torch.cat(means), torch.cat(log_variances)))

    @torch.no_grad()
    def _encode(self, clip: int) -> tuple[Tensor, Tensor]:
        """Return the moments of a clip, two tensors [1, C, F, H, W], in the precision of the weights."""
        frames = self.world[clip][0][None].to(self.context.device)
        with torch.autocast(self.context.device.type, enabled=False):
            return encode_moments(self.vae, frames)

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
