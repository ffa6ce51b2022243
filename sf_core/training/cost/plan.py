"""Predicted memory and operations of a Self Forcing stage, before anything is loaded.

`python -m sf_core train --plan` prints the table of docs/training.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from ...config import RolloutConfig
from ...model.architecture import PUBLISHED_SIZES, WanArchitecture
from ...model.wan import CausalWan, WanBlock
from ...work import attention_flops, linear_flops
from ..engine.lora_adapters import LAYERS
from ..recipe import AdapterSettings
from .memory import FLOAT, judging_bytes, rollout_bytes

MOMENTS = 2  # of AdamW, each as large as a gradient


@lru_cache
def parameter_count(arch: WanArchitecture) -> int:
    """Return the number of parameters of a transformer."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in CausalWan(arch).parameters())


def adapter_count(arch: WanArchitecture, rank: int) -> int:
    """Return the number of parameters of one set of adapters."""
    with torch.device("meta"):
        block = WanBlock(arch)
    adapted = [module for name, module in block.named_modules() if name in LAYERS and isinstance(module, nn.Linear)]
    return arch.num_layers * rank * sum(layer.in_features + layer.out_features for layer in adapted)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training without text encoder and VAE.

    Attributes:
        weights: Weights of generator, critic and teacher.
        gradients: Gradients of the generator, whose update needs more than the critic's.
        moments: AdamW's moments of generator and critic.
        average: The EMA of the generator.
        rollout: Peak of a rollout and its backward pass, see `memory.RolloutMemory`.
        judged: The rollout's graph, and the temporary tensors of teacher and critic on the whole video; no gradients
            exist at that time.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    rollout: int
    judged: int

    @property
    def total(self) -> int:
        """The bytes at the peak of an update."""
        return self.weights + self.moments + self.average + max(self.gradients + self.rollout, self.judged)


def training_bytes(
    arch: WanArchitecture,
    teacher: WanArchitecture,
    config: RolloutConfig,
    latent_size: tuple[int, int],
    frames: int = 21,
    dtype: torch.dtype = torch.bfloat16,
    lora: AdapterSettings | None = None,
    batch: int = 1,
    checkpointing: bool = True,
) -> TrainingMemory:
    """Predict the memory of a single process that trains a generator and a critic.

    Args:
        arch: Architecture of generator and critic.
        teacher: Architecture of the teacher.
        config: Rollout settings.
        latent_size: (height, width) of latents.
        frames: Latent frames of a rollout.
        dtype: Dtype of the arithmetic and of the frozen weights; trained weights are float32.
        lora: Train adapters over the teacher's weights.
        batch: Videos in a micro-batch.
        checkpointing: Gradient checkpointing.

    Raises:
        ValueError: If adapters are trained and the two architectures differ.
    """
    rollout = rollout_bytes(arch, config, latent_size, batch, frames, dtype, checkpointing)
    graph, judge = rollout.peak - rollout.working, arch if lora is not None else teacher
    judged = graph + judging_bytes(judge, latent_size, batch, frames, dtype, lora is not None)
    base = dtype.itemsize * parameter_count(teacher)
    if lora is None:
        trained = FLOAT * parameter_count(arch)
        return TrainingMemory(base + 2 * trained, trained, 2 * MOMENTS * trained, trained, rollout.peak, judged)
    if arch != teacher:
        raise ValueError("adapters are over the teacher's weights: generator and teacher are of one architecture")
    trained = FLOAT * adapter_count(arch, lora.rank)
    return TrainingMemory(base + 2 * trained, trained, 2 * MOMENTS * trained, trained, rollout.peak, judged)


def forward_flops(arch: WanArchitecture, latent_size: tuple[int, int], frames: int, seen: int) -> float:
    """Return the FLOP of one pass over ``frames`` latent frames that attend to ``seen``."""
    return linear_flops(arch, latent_size, frames) + attention_flops(arch, latent_size, frames, seen)


def update_flops(
    arch: WanArchitecture,
    teacher: WanArchitecture,
    config: RolloutConfig,
    latent_size: tuple[int, int],
    frames: int = 21,
) -> tuple[float, float]:
    """Predict the FLOP of an update on one video, with DMD, checkpointing and guidance.

    A rollout takes, per chunk, on average half of the denoising steps before the exit step, the exit step, and a pass
    for the keys and values. A backward pass with checkpointing costs three more passes. Teacher and critic see the
    whole video at once.

    Returns:
        FLOP of an update of the generator, and of the critic.
    """
    chunk, window = config.chunk_frames, config.window_frames or frames
    ends = range(chunk, frames + 1, chunk)
    chunks = sum(forward_flops(arch, latent_size, chunk, min(window, end)) for end in ends)
    passes = (len(config.denoising_steps) - 1) / 2 + 2
    by_critic = forward_flops(arch, latent_size, frames, frames)
    by_teacher = forward_flops(teacher, latent_size, frames, frames)
    return (passes + 3) * chunks + 2 * by_teacher + by_critic, passes * chunks + 4 * by_critic


# The table ------------------------------------------------------------------------------------------------------------

SIZES = {name: PUBLISHED_SIZES[name] for name in ("1.3B", "14B")}
PUBLISHED = RolloutConfig(chunk_frames=3, window_frames=21, denoising_steps=(1000, 750, 500, 250), shift=5.0)
LATENT_SIZE = (60, 104)  # 832 x 480


def table() -> str:
    """Return the predictions for published sizes as a Markdown table, in GiB and PFLOP."""
    parts = "weights | gradients | AdamW | average | rollout | judged"
    lines = [f"| generator and critic | teacher | {parts} | sum, GiB | PFLOP |", "|---" * 10 + "|"]
    for student, teacher, rank in (
        *(("1.3B", "1.3B", 0), ("1.3B", "14B", 0), ("1.3B", "1.3B", 64), ("1.3B", "1.3B", 256)),
        *(("14B", "14B", 0), ("14B", "14B", 64), ("14B", "14B", 256)),
    ):
        lora = AdapterSettings(rank=rank, alpha=rank) if rank else None
        arch, judge = SIZES[student], SIZES[teacher]
        memory = training_bytes(arch, judge, PUBLISHED, LATENT_SIZE, lora=lora)
        columns = (memory.weights, memory.gradients, memory.moments, memory.average, memory.rollout, memory.judged)
        numbers = (*columns, memory.total)
        name = f"LoRA of rank {rank} over {teacher}" if rank else f"two of {student}"
        flops = "{:.1f} + {:.1f}".format(*(one / 1e15 for one in update_flops(arch, judge, PUBLISHED, LATENT_SIZE)))
        lines.append(" | ".join([f"| {name}", teacher, *(f"{part / 2**30:.1f}" for part in numbers), flops]) + " |")
    return "\n".join(lines)
