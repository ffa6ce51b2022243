"""What a stage of a training is, for the trainer: learners, a step, something to show, a result."""

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
from ..engine.networks import facts_of, save_transformer
from ..engine.run_log import Report
from ..losses.loss import Loss
from ..recipe import Recipe
from .run_context import Parts


class StageRun:
    """One stage at work. Its state between two steps is that of its learners: all else is addressed by the step.

    spec: its table in the recipe. number: its place among the stages. report: for what takes long before it starts.
    """

    makes: str  # the network that `finish` leaves
    spec: Any  # each kind of stage narrows it
    learners: dict[str, Learner]

    def __init__(self, spec: Any, parts: Parts, number: int, report: Report) -> None:
        self.spec, self.parts, self.number, self.report = spec, parts, number, report

    @property
    def name(self) -> str:
        return f"{self.number + 1}-{self.spec.kind}"

    def step(self, index: int) -> dict[str, Tensor]:
        """The update number ``index``, counted from 0; what it gives depends on that and the learners' state alone."""
        raise NotImplementedError

    def show(self, step: int) -> None:
        """Samples of what it can do after ``step`` steps."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write what it made. Doing it twice is doing it once."""
        raise NotImplementedError

    # What steps are made of -----------------------------------------------------------------------------------------

    def micro(self, index: int, role: int, loss: Callable[[int, torch.Generator], Loss]) -> list[Callable[[], Loss]]:
        """This process's losses to gather for one update: ``loss(number, rng)``, with the draws of this number.

        role: tells updates of one step apart. number: of the batch, among those of its role.
        """

        def one(part: int) -> Callable[[], Loss]:
            number = index * self.spec.accumulate + part

            def compute() -> Loss:
                with self.parts.autocast():
                    return loss(number, self.parts.generator(self.number, number, role))

            return compute

        return [one(part) for part in self.parts.group.share(self.spec.accumulate)]

    def facts(self) -> dict[str, str]:
        """What a file that the stage writes says of how it was made."""
        recipe: Recipe = self.parts.recipe
        made = f"recipe {recipe.name}, seed {recipe.seed}, stage {self.name}, {self.spec.steps} steps"
        return {"sf.trained": made, "sf.fps": f"{recipe.fps:g}"}

    def save_transformer(self, name: str, model: Module) -> None:
        """Leave ``model`` as the network ``name``."""
        assert isinstance(model, CausalWan)
        path, parts = self.parts.made(name), self.parts
        if isinstance(model, AdaptedWan):
            facts = {**facts_of(model, parts.config, parts.latent_size), **self.facts()}
            return parts.group.write(path, model.lora(), facts)
        save_transformer(path, model, parts.config, parts.latent_size, self.facts(), parts.group.write)

    def show_rollouts(self, model: Module, sampler: Sampler, step: int) -> None:
        """Videos of the training length, a longer one, and how that one drifts."""
        assert isinstance(model, CausalWan)
        videos = sampler.videos(model)
        if videos is not None:
            self.report.sample(self.name, step, videos, sampler.fps, sampler.prompts)
        frames, curves = sampler.long_rollout(model)
        if frames is not None:
            self.report.sample(f"{self.name}-long", step, frames, sampler.fps, sampler.prompts[:1])
        self.report.drift(self.name, step, curves, sampler.trained_chunks)

    # State ----------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": tensor
            for name, learner in self.learners.items()
            for key, tensor in learner.state().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, learner in self.learners.items():
            learner.load({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})


def sampler(parts: Parts) -> Sampler:
    """What is sampled on the way, with the code of inference."""
    recipe = parts.recipe
    vae = parts.vae if parts.has("vae") else None
    return Sampler(
        list(parts.shown_prompts),
        parts.embed,
        vae,
        parts.latent_size,
        parts.config,
        recipe.frames,
        recipe.samples.long,
        seed=parts.seed(0, 0, 0) % 2**32,
        fps=recipe.fps,
    )
