"""Predicted size of the files of a training, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ...files.checkpoint import empty_model, open_source
from ...files.weights import transformer_weights
from ...model.architecture import WanArchitecture
from ..recipe import Files, Recipe
from ..stage_settings import CausalStage, Optimizer, SelfForcingStage, Stage, TeacherStage
from .memory import FLOAT
from .plan import MOMENTS, adapter_count, parameter_count

SPATIAL_FACTOR = 8  # pixels along an edge for each one of a latent, of Wan's VAE and of the tiny one
_STATES = 2  # while a state is replaced, the old one is there too
_BEGINNINGS = {"teacher": ("teacher",), "model": ("generator", "teacher"), "critic": ("critic", "teacher")}

ArchitectureOf = Callable[[str], WanArchitecture]


def run_bytes(recipe: Recipe, architecture_of: ArchitectureOf, clips: int = 0) -> int:
    """Estimate the files in a run's folder: its state, networks, and stored latents and trajectories.

    Args:
        recipe: The recipe.
        architecture_of: Returns the architecture of "teacher", "model" or "critic".
        clips: Number of videos to encode, if a stage learns from videos.
    """
    networks, state, stored = dict[str, int](), 0, 0

    def size(name: str) -> int:
        arch = architecture_of(name)
        adapted = recipe.lora is not None and name != "teacher"
        return FLOAT * (adapter_count(arch, recipe.lora.rank) if adapted and recipe.lora else parameter_count(arch))

    for stage in recipe.stages:
        if isinstance(stage, SelfForcingStage):
            networks |= {"model": size("model"), "critic": size("critic")}
            trained = _learner(networks["model"], stage.optimizer) + _learner(networks["critic"], stage.critic)
        elif isinstance(stage, (TeacherStage, CausalStage)):
            name, beginning = ("teacher",) * 2 if isinstance(stage, TeacherStage) else ("causal", "model")
            networks[name] = size(beginning)
            trained = _learner(networks[name], stage.optimizer)
        else:  # a VAE is small
            continue
        state = max(state, trained)
        if isinstance(stage, CausalStage) and stage.by == "ode":
            states = len(recipe.rollout_config.denoising_steps) + 1
            stored = max(stored, stage.trajectories * states * _latent_bytes(recipe, architecture_of("teacher").in_dim))
    if any(map(_learns_from_videos, recipe.stages)):
        stored += clips * _latent_bytes(recipe, architecture_of("teacher").in_dim)
    return sum(networks.values()) + _STATES * state + stored


def smaller_run(recipe: Recipe) -> str:
    """Say what makes the files of `run_bytes` smaller: networks and state, trajectories, stored videos."""
    ways = ["train adapters ([lora])" if recipe.lora is None else "choose a smaller rank ([lora])"]
    if any(isinstance(stage, CausalStage) and stage.by == "ode" for stage in recipe.stages):
        ways.append("solve fewer trajectories")
    if any(map(_learns_from_videos, recipe.stages)):
        ways.append("learn from fewer videos")
    return ", or ".join(ways)


def architecture_in(recipe: Recipe, name: str) -> WanArchitecture:
    """Return the architecture of a network of `run_bytes`, of the recipe's new model or of the file it begins with.

    Raises:
        ValueError: The recipe names neither, or the file is no transformer.
    """
    files: Files = recipe.files
    beginnings = ("teacher",) if recipe.lora else _BEGINNINGS[name]  # files of other networks are adapters
    paths: list[Path | None] = [getattr(files, one) for one in beginnings]
    path = next(filter(None, paths), None)
    if path is not None:
        tensors, metadata = open_source(path)
        # the number of heads has no part in the size, and not every file knows it
        return empty_model(transformer_weights(tensors), metadata, {"num_heads": 1}).arch
    new = recipe.model
    if new is None:
        raise ValueError(
            f"there is no {name} to begin with: name its file under [files] of the recipe, or put a stage that makes "
            "it before"
        )
    return WanArchitecture(new.dim, new.ffn_dim, new.layers, new.heads, freq_dim=new.freq_dim)


def _learner(network: int, settings: Optimizer) -> int:
    """Bytes of a network in training, its moments and its average."""
    return network * (1 + MOMENTS + (1 if settings.ema else 0))


def _learns_from_videos(stage: Stage) -> bool:
    if isinstance(stage, SelfForcingStage):
        return stage.loss == "gan" or bool(stage.context_frames) or stage.videos != "rollouts"
    return isinstance(stage, TeacherStage) or (isinstance(stage, CausalStage) and stage.by != "ode")


def _latent_bytes(recipe: Recipe, channels: int) -> int:
    """Bytes of the stored latents of a video of the training length, float32."""
    side = (recipe.world.size if recipe.world else 0) // SPATIAL_FACTOR
    return FLOAT * channels * recipe.frames * math.prod(recipe.latent_size or (side, side))
