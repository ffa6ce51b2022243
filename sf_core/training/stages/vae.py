"""The stage that trains a small Wan VAE on a world's frames."""

from __future__ import annotations

import torch
from torch import Tensor

from ...vae.wan_vae import load_vae
from ..data.shuffled import Shuffled
from ..engine.learner import Learner
from ..engine.run_log import Report
from ..losses.autoencoder import AutoencoderLoss, measure_latents, new_vae
from ..losses.loss import Loss
from ..recipe import VAEStage
from .base import StageRun
from .run_context import Parts

MEASURED_CLIPS = 256  # of the training length, for the mean and spread of the latents
SHOWN_CLIPS = 8


class VAETraining(StageRun):
    makes = "vae"
    spec: VAEStage

    def __init__(self, spec: VAEStage, parts: Parts, number: int, report: Report) -> None:
        super().__init__(spec, parts, number, report)
        vae = load_vae(parts.find("vae")) if parts.has("vae") else new_vae(spec.dim, seed=parts.seed(number))
        self.vae = vae.to(parts.device)
        for name, parameter in vae.named_parameters():
            parameter.requires_grad_(not spec.decoder_only or name.startswith(("decoder.", "conv2.")))
        self.world = parts.world(spec.frames)
        self.order = Shuffled(len(self.world), parts.seed(number))
        self.loss = AutoencoderLoss(spec.kl)
        self.learners = {"vae": Learner("vae", vae, spec.optimizer, spec.steps, group=parts.group)}

    def step(self, index: int) -> dict[str, Tensor]:
        return self.learners["vae"].update(self.micro(index, 0, self._loss))

    def _loss(self, number: int, rng: torch.Generator) -> Loss:
        frames = torch.stack([self.world[i][0] for i in self.order.batch(number, self.spec.batch)])
        return self.loss.loss(self.vae, frames.to(self.parts.device), rng=rng)

    @torch.no_grad()
    def show(self, step: int) -> None:
        """Clips, each with what becomes of it to its right."""
        factor = self.vae.temporal_factor
        world = self.parts.world(1 + (self.parts.recipe.frames - 1) * factor)
        shown = [world[i] for i in range(min(SHOWN_CLIPS, len(world)))]
        frames = torch.stack([clip for clip, _ in shown])
        again = self.vae.decode(self.vae.encode(frames.to(self.parts.device))).cpu()
        pairs = torch.stack([frames, again], dim=1).flatten(0, 1)
        captions = [caption for _, caption in shown for _ in range(2)]
        self.report.sample(self.name, step, pairs, self.parts.recipe.fps, captions)

    def finish(self) -> None:
        world = self.parts.world(1 + (self.parts.recipe.frames - 1) * self.vae.temporal_factor)
        clips = (world[i][0][None].to(self.parts.device) for i in range(min(MEASURED_CLIPS, len(world))))
        measure_latents(self.vae, clips)
        self.parts.group.write(self.parts.made("vae"), self.vae.state_dict(), self.facts())
