"""A LoRA that was trained by the pack's own code goes through ComfyUI's loader, and does there what it does here."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import sf_core
from sf_core import tiny
from sf_core.training import DMD, rollout
from sf_core.training.adapters import AdaptedWan
from sf_core.training.learner import Learner
from sf_core.training.loss import Loss
from sf_core.training.recipe import LowRank, Optimizer
from tests.comfyui import models
from tests.comfyui.graphs import BLUE, Graph, Tiny, forget_all, latents, probe
from tests.helpers import relative
from tools.comfyui.server import Server


def trained() -> AdaptedWan:
    """Some steps of DMD, large enough to be seen."""
    base, text = tiny.load_transformer(), tiny.load_text()
    generator, critic = (AdaptedWan(base, LowRank(rank=4, alpha=8.0), seed).requires_grad_(True) for seed in (0, 1))
    loss, config, size = DMD(base, critic, guidance=1.0), base.rollout_config, base.latent_size
    assert config is not None
    assert size is not None
    learner = Learner("generator", generator, Optimizer(lr=2e-2), 3)
    words, nothing = text.encode(BLUE), text.encode("")

    def judged(step: int) -> Loss:
        """In here, since a learner lets its network take a gradient only while it learns."""
        noise = torch.randn(1, base.arch.in_dim, 6, *size, generator=torch.Generator().manual_seed(step))
        rng = torch.Generator().manual_seed(step)
        made = rollout(generator, words, noise, config, frames=6, clip_frames=6, rng=rng)
        return loss.generator_loss(made, words, nothing, rng=rng)

    for step in range(3):
        learner.update([partial(judged, step)])
    return generator


def sampled(model: sf_core.CausalWan) -> Tensor:
    session = sf_core.Session.start(model, tiny.load_text().encode(BLUE), seed=3)
    for _ in range(3):
        session = session.next_chunk()[0]
    return session.latents


def test_cores_loader_takes_all_of_it_and_gives_the_latents_of_the_core(server: Server) -> None:
    forget_all(server)
    model = trained()
    models.put(server, "loras", "trained.safetensors", model.lora())
    merged = sf_core.load_model(
        tiny.FOLDER / "transformer.safetensors", lora=server.base / "models" / "loras" / "trained.safetensors"
    )
    wanted, plain = sampled(merged), sampled(tiny.load_transformer())
    assert relative(wanted, plain) > 0.05
    before = len(server.log_text())
    graph = Graph()
    parts = Tiny.of(graph)
    loaded = graph("LoraLoaderModelOnly", model=parts.model, lora_name="trained.safetensors", strength_model=1.0)[0]
    number = probe(graph, parts.sampled(parts.session(BLUE, seed=3, model=loaded), 3))
    assert relative(latents(server.run(graph.prompt), number), wanted) < 1e-4
    assert "lora key not loaded" not in server.log_text()[before:]
