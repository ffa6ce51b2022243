"""A training as the inputs of Self Forcing Train describe it: a recipe of `sf_core`, and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..sf_core.config import RolloutConfig
from ..sf_core.files.clean_text import clean_text
from ..sf_core.files.disk import check_room, make_folder
from ..sf_core.files.file_names import check_new_file, is_plain_name
from ..sf_core.training.cost.disk import run_bytes
from ..sf_core.training.cost.plan import parameter_count, training_bytes
from ..sf_core.training.recipe import AdapterSettings, Files, Recipe, Samples
from ..sf_core.training.stage_settings import CausalStage, Optimizer, SelfForcingStage
from ..sf_core.training.trainer import STATE, differences
from .adapters import host
from .adapters.model import HostedWan, latent_size
from .adapters.training import teacher_file
from .inputs import FPS

LORA, WHOLE = "LoRA", "whole model"
FOLDER = "self_forcing_training"  # below ComfyUI's output
PROMPTS = "prompts.txt"
RATIO, CRITIC_RATE = 5, 0.2  # updates of the critic for each of the generator, and its learning rate, as published
AVERAGE = 0.9  # decay of the generator's running average, which is the result
TRAJECTORIES, SOLVER_STEPS = 256, 24  # for the causal start: the teacher's, at most, and steps of each
SHOWN = 4  # prompts that samples are made of
_INPUTS = {
    "files": "model",
    "latent_size": "width, height",
    "frames": "chunks",
    "rollout": "settings",
    "lora": "result, rank",
    "stages": "start_steps, steps, batch_size, accumulate, learning_rate, guidance, checkpointing",
}  # inputs of the node by key of the recipe


@dataclass(frozen=True)
class Job:
    """A training of the node.

    Attributes:
        recipe: Its settings.
        prompts: Prompts to learn.
        folder: Folder of the run.
        file: The result, in the folder of ComfyUI's loaders.
        needs: Memory in bytes.
        writes: Estimated bytes of the files in its folder.
    """

    recipe: Recipe
    prompts: Sequence[str]
    folder: Path
    file: Path
    needs: int
    writes: int

    @staticmethod
    def of(wan: HostedWan, config: RolloutConfig, values: Mapping[str, Any], shows: bool) -> Job:
        """Make the job of the inputs; samples are made if ``shows``. Raises ValueError, naming the wrong input."""
        prompts = [line.strip() for line in clean_text(values["prompts"]).splitlines() if line.strip()]
        if not prompts:
            raise ValueError("'prompts' is empty; write what the model should learn to show, a prompt a line")
        name = values["name"].strip()
        if name[:1] in (".", "-") or not is_plain_name(name, ".-"):
            raise ValueError(f"'name' is {name!r}, which is no name of a file: use letters, digits, '_', '-' and '.'")
        check_new_file(host.output_folder() / f"{name}.safetensors", needs_folder=False)
        folder = host.output_folder() / FOLDER / name
        lora = AdapterSettings(rank=values["rank"], alpha=values["rank"]) if values["result"] == LORA else None
        kind = "diffusion_models" if lora is None else "loras"
        file = host.models_folder(kind) / f"{name}.safetensors"
        size = latent_size(wan, values["width"], values["height"])
        frames = sum(config.frames_of_block(block) for block in range(values["chunks"]))
        dtype = torch.float32 if wan.device.type == "cpu" else torch.bfloat16
        memory = training_bytes(
            wan.arch, wan.arch, config, size, frames, dtype, lora, values["batch_size"], values["checkpointing"]
        )
        recipe = Recipe(
            name=name,
            about="by the node Self Forcing Train",
            seed=values["seed"],
            device=str(wan.device),
            dtype="float32" if dtype == torch.float32 else "bfloat16",
            frames=frames,
            latent_size=size,
            fps=FPS,
            negative=clean_text(values["negative"]).strip(),
            rollout=config.as_dict(),
            lora=lora,
            files=Files(teacher=teacher_file(wan, folder), prompts=folder / PROMPTS),
            samples=Samples(
                prompts=tuple(prompts[:SHOWN]), every=RATIO * values["sample_every" if shows else "steps"], long=1
            ),
            stages=_stages(values),
        )
        teacher = parameter_count(wan.arch) * dtype.itemsize
        return Job(recipe, prompts, folder, file, memory.total, teacher + run_bytes(recipe, lambda _: wan.arch))

    @property
    def newest_network(self) -> Path | None:
        """The newest network of the run: the model, or that of the causal start."""
        ending = ".lora.safetensors" if self.recipe.lora else ".safetensors"
        paths = (self.folder / f"{name}{ending}" for name in ("model", "causal"))
        return next((path for path in paths if path.exists()), None)

    @property
    def begun(self) -> bool:
        """Whether there is a training to resume."""
        return (self.folder / STATE).exists()

    def check_disk(self) -> None:
        """Raise OSError if a folder takes no files, or a disk has no room for what will be written."""
        for folder in (self.folder, self.file.parent):
            make_folder(folder)
        if not self.begun:
            check_room({self.folder: self.writes}, or_else=_smaller(self.recipe))
        if not any(self.folder.iterdir()):  # a training that is refused leaves nothing
            self.folder.rmdir()

    def check_free(self) -> None:
        """Raise ValueError if another file, or a training with other inputs, has the name."""
        if self.file.exists() and not self.begun:
            raise ValueError(f"{self.file} is there already, and not of this training: choose another 'name'")
        if not self.begun:
            return
        differ = differences(self.recipe, self.folder / STATE)
        if (self.folder / PROMPTS).read_text(encoding="utf-8") != as_lines(self.prompts):
            differ.append("prompts")
        if differ:
            inputs = ", ".join(dict.fromkeys(_INPUTS.get(key, key) for key in differ))
            raise ValueError(
                f"the training {self.recipe.name!r} was begun with other inputs ({inputs}). Set them back to go on "
                f"with it, or choose another 'name'. What it has made so far is in {self.folder}"
            )


def _smaller(recipe: Recipe) -> str:
    """Say which inputs make the files of a training smaller: its networks and states, and the teacher's videos."""
    ways = ["choose LoRA as 'result'" if recipe.lora is None else "choose a smaller 'rank'"]
    if any(isinstance(stage, CausalStage) for stage in recipe.stages):
        ways.append("set 'start_steps' to 0, or choose a smaller 'width' or 'height' or fewer 'chunks'")
    return ", or ".join(ways)


def as_lines(prompts: Sequence[str]) -> str:
    """Return prompts as the text of a file, one a line."""
    return "".join(f"{prompt}\n" for prompt in prompts)


def _stages(values: Mapping[str, Any]) -> tuple[CausalStage | SelfForcingStage, ...]:
    batch, accumulate, again = values["batch_size"], values["accumulate"], values["checkpointing"]
    guidance, rate = values["guidance"], values["learning_rate"]
    forcing = SelfForcingStage(
        kind="self-forcing",
        steps=values["steps"] * RATIO,
        ratio=RATIO,
        batch=batch,
        accumulate=accumulate,
        guidance=guidance,
        checkpointing=again,
        optimizer=Optimizer(lr=rate, ema=AVERAGE),
        critic=Optimizer(lr=CRITIC_RATE * rate),
    )
    if not values["start_steps"]:
        return (forcing,)
    start = CausalStage(
        kind="causal",
        by="ode",
        steps=values["start_steps"],
        batch=batch,
        accumulate=accumulate,
        guidance=guidance,
        checkpointing=again,
        trajectories=min(TRAJECTORIES, values["start_steps"] * batch * accumulate),
        solver_steps=SOLVER_STEPS,
        optimizer=Optimizer(lr=rate, betas=(0.9, 0.99)),
    )
    return start, forcing
