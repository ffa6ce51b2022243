"""The base of all stages, as the trainer uses them: learners, a step, samples, a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ...model.wan import CausalWan
from ..engine.eval_samples import Sampler
from ..engine.learner import Learner
from ..engine.lora_adapters import AdaptedWan
from ..engine.networks import model_metadata, save_transformer
from ..engine.run_log import RunLog
from ..losses.loss import Loss
from ..recipe import Recipe
from .run_context import RunContext


class StageRun:
    """A running stage.

    Its state between two steps is the state of its learners; everything else depends on the step's number alone.

    Args:
        spec: Its table in the recipe.
        context: Files, networks and data of the run.
        number: Its index in the recipe.
        run_log: Log of the run.
    """

    makes: str  # name of the network that `finish` writes
    spec: Any  # each subclass narrows the type
    learners: dict[str, Learner]

    def __init__(self, spec: Any, context: RunContext, number: int, run_log: RunLog) -> None:
        self.spec, self.context, self.number, self.run_log = spec, context, number, run_log

    @property
    def name(self) -> str:
        """The stage's name in logs and files, such as ``2-causal``."""
        return f"{self.number + 1}-{self.spec.kind}"

    def step(self, index: int) -> dict[str, Tensor]:
        """Run update ``index`` (from 0) and return its logs; it depends on ``index`` and the learners' state alone."""
        raise NotImplementedError

    def show(self, step: int) -> None:
        """Write samples of the network after ``step`` steps."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write the trained network. A second call has no further effect."""
        raise NotImplementedError

    # Helpers of subclasses ------------------------------------------------------------------------------------------

    def microbatches(
        self, index: int, role: int, loss: Callable[[int, torch.Generator], Loss]
    ) -> list[Callable[[], Loss]]:
        """Return this rank's micro-batches for one optimizer step, as functions that compute their losses.

        Args:
            index: Number of the update.
            role: Separates the random numbers of different networks' updates in one step.
            loss: ``loss(number, rng)``, with the number of the micro-batch and a generator that is seeded with it.
        """

        def microbatch(part: int) -> Callable[[], Loss]:
            number = index * self.spec.accumulate + part

            def compute() -> Loss:
                with self.context.autocast():
                    return loss(number, self.context.generator(self.number, number, role))

            return compute

        return [microbatch(part) for part in self.context.group.share(self.spec.accumulate)]

    def training_metadata(self) -> dict[str, str]:
        """Return the metadata of the stage's file that names the training."""
        recipe: Recipe = self.context.recipe
        trained = f"recipe {recipe.name}, seed {recipe.seed}, stage {self.name}, {self.spec.steps} steps"
        return {"sf.trained": trained, "sf.fps": f"{recipe.fps:g}"}

    def save_transformer(self, name: str, model: Module) -> None:
        """Write ``model`` as the network ``name`` of the run."""
        assert isinstance(model, CausalWan)
        path, context = self.context.network_path(name), self.context
        if isinstance(model, AdaptedWan):
            metadata = {**model_metadata(model, context.config, context.latent_size), **self.training_metadata()}
            return context.group.write(path, model.lora(), metadata)
        metadata = {**self.training_metadata(), **context.latent_metadata()}
        save_transformer(path, model, context.config, context.latent_size, metadata, context.group.write)

    def show_rollouts(self, model: Module, sampler: Sampler, step: int) -> None:
        """Write videos of the training length, a longer one, and a plot of its drift."""
        assert isinstance(model, CausalWan)
        videos = sampler.videos(model)
        if videos is not None:
            self.run_log.sample(self.name, step, videos, sampler.fps, sampler.prompts)
        frames, curves = sampler.long_rollout(model)
        if frames is not None:
            self.run_log.sample(f"{self.name}-long", step, frames, sampler.fps, sampler.prompts[:1])
        self.run_log.drift(self.name, step, curves, sampler.trained_chunks)

    # State ----------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Return the state of all learners."""
        return {
            f"{name}.{key}": tensor
            for name, learner in self.learners.items()
            for key, tensor in learner.state().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load a state from `state`."""
        for name, learner in self.learners.items():
            learner.load({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})


def make_sampler(context: RunContext) -> Sampler:
    """Build the sampler of the recipe, which uses the code of inference."""
    recipe = context.recipe
    vae = context.vae if context.has_network("vae") else None
    return Sampler(
        list(context.sample_prompts),
        context.embed,
        vae,
        context.latent_size,
        context.config,
        recipe.frames,
        recipe.samples.long,
        seed=context.seed(0, 0, 0) % 2**32,
        fps=recipe.fps,
    )
