"""What a Self Forcing stage will take, before anything is loaded: bytes, and operations of an update.

`python -m sf_core.training.cost.plan` prints the table of docs/training.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...config import RolloutConfig
from ...model.architecture import WanArchitecture
from ..recipe import LowRank
from .memory import FLOAT, judging_bytes, rollout_bytes

MOMENTS = 2  # of AdamW, as large as a gradient each


def parameter_count(arch: WanArchitecture) -> int:
    """Of a whole transformer."""
    dim, ffn, patch = arch.dim, arch.ffn_dim, arch.patch_size[0] * arch.patch_size[1] * arch.patch_size[2]
    square = dim * dim + dim
    attention = 4 * square + (2 * dim if arch.qk_norm else 0)
    block = 2 * attention + (2 * dim if arch.cross_attn_norm else 0) + 2 * dim * ffn + ffn + dim + 6 * dim
    text, time = (arch.text_dim + 1) * dim + square, (arch.freq_dim + 1) * dim + square + 6 * square
    ends = (arch.in_dim * patch + 1) * dim + (dim + 1) * patch * arch.out_dim + 2 * dim
    return arch.num_layers * block + text + time + ends


def adapter_count(arch: WanArchitecture, rank: int) -> int:
    """Of one set of adapters, on all that `adapters.LAYERS` names."""
    attention, ffn = 8 * 2 * arch.dim, 2 * (arch.dim + arch.ffn_dim)
    return arch.num_layers * rank * (attention + ffn)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes at the moment when the most is alive; without text encoder and VAE.

    weights: of generator, critic and teacher. gradients: of the generator, the larger part of an update. moments: of
    AdamW, for generator and critic. average: the running one. rollout: see `memory.RolloutMemory`. judged: what is left
    of it, and the work on it, while teacher and critic look at the whole video; there are no gradients then.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    rollout: int
    judged: int

    @property
    def total(self) -> int:
        return self.weights + self.moments + self.average + max(self.gradients + self.rollout, self.judged)


def training_bytes(
    arch: WanArchitecture,
    teacher: WanArchitecture,
    config: RolloutConfig,
    latent_size: tuple[int, int],
    frames: int = 21,
    dtype: torch.dtype = torch.bfloat16,
    lora: LowRank | None = None,
    batch: int = 1,
    checkpointing: bool = True,
) -> TrainingMemory:
    """Of one process that trains a generator and a critic of ``arch``, ``batch`` videos at a time.

    dtype: of the arithmetic; what is trained is float32. lora: adapters over ``teacher``, of which ``arch`` must be.
    Raises ValueError otherwise.
    """
    rollout = rollout_bytes(arch, config, latent_size, batch, frames, dtype, checkpointing)
    kept, judge = rollout.peak - rollout.working, arch if lora is not None else teacher
    judged = kept + judging_bytes(judge, latent_size, batch, frames, dtype, lora is not None)
    base = dtype.itemsize * parameter_count(teacher)
    if lora is None:
        trained = FLOAT * parameter_count(arch)
        return TrainingMemory(base + 2 * trained, trained, 2 * MOMENTS * trained, trained, rollout.peak, judged)
    if arch != teacher:
        raise ValueError("adapters are over the teacher's weights: generator and teacher are of one architecture")
    trained = FLOAT * adapter_count(arch, lora.rank)
    return TrainingMemory(base + 2 * trained, trained, 2 * MOMENTS * trained, trained, rollout.peak, judged)


def forward_flops(arch: WanArchitecture, latent_size: tuple[int, int], frames: int, seen: int) -> float:
    """Multiply-adds, twice, of one pass over ``frames`` latent frames that attend to ``seen``."""
    rows, columns = arch.token_grid(latent_size)
    tokens, keys = frames * rows * columns, seen * rows * columns
    dense = 6 * arch.dim**2 + 2 * arch.dim * arch.ffn_dim  # q, k, v, o; q and o of the text's; the feed-forward net
    attention = 2 * arch.dim * (keys + arch.text_len)
    return 2.0 * arch.num_layers * tokens * (dense + attention)


def update_flops(
    arch: WanArchitecture,
    teacher: WanArchitecture,
    config: RolloutConfig,
    latent_size: tuple[int, int],
    frames: int = 21,
) -> tuple[float, float]:
    """(of a generator's update on one video, of a critic's), with DMD, checkpointing and guidance.

    A rollout takes on average half of the denoising steps before the one that counts, that one, and a pass for the
    cache; a backward pass with checkpointing is three more. The judges each see the whole video at once.
    """
    chunk, window = config.chunk_frames, config.window_frames or frames
    ends = range(chunk, frames + 1, chunk)
    one = sum(forward_flops(arch, latent_size, chunk, min(window, end)) for end in ends)
    passes = (len(config.denoising_steps) - 1) / 2 + 2
    whole = forward_flops(arch, latent_size, frames, frames)
    judged = forward_flops(teacher, latent_size, frames, frames)
    return (passes + 3) * one + 2 * judged + whole, passes * one + 4 * whole


# The table ------------------------------------------------------------------------------------------------------------

SIZES = {
    "1.3B": WanArchitecture(dim=1536, ffn_dim=8960, num_layers=30, num_heads=12),
    "14B": WanArchitecture(dim=5120, ffn_dim=13824, num_layers=40, num_heads=40),
}
PUBLISHED = RolloutConfig(chunk_frames=3, window_frames=21, denoising_steps=(1000, 750, 500, 250), shift=5.0)
LATENT_SIZE = (60, 104)  # 832 x 480


def table() -> str:
    """In Markdown, GiB and PFLOP."""
    parts = "weights | gradients | AdamW | average | rollout | judged"
    lines = [f"| generator and critic | teacher | {parts} | sum, GiB | PFLOP |", "|---" * 10 + "|"]
    for student, teacher, rank in (
        *(("1.3B", "1.3B", 0), ("1.3B", "14B", 0), ("1.3B", "1.3B", 64), ("1.3B", "1.3B", 256)),
        *(("14B", "14B", 0), ("14B", "14B", 64), ("14B", "14B", 256)),
    ):
        lora = LowRank(rank=rank, alpha=rank) if rank else None
        arch, judge = SIZES[student], SIZES[teacher]
        memory = training_bytes(arch, judge, PUBLISHED, LATENT_SIZE, lora=lora)
        alive = (memory.weights, memory.gradients, memory.moments, memory.average, memory.rollout, memory.judged)
        numbers = (*alive, memory.total)
        name = f"LoRA of rank {rank} over {teacher}" if rank else f"two of {student}"
        flops = "{:.1f} + {:.1f}".format(*(one / 1e15 for one in update_flops(arch, judge, PUBLISHED, LATENT_SIZE)))
        lines.append(" | ".join([f"| {name}", teacher, *(f"{part / 2**30:.1f}" for part in numbers), flops]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
