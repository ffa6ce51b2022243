"""The memory of a training rollout: known before it is taken, and no larger for more denoising steps."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sf_core
from sf_core.model.architecture import WanArchitecture
from sf_core.training import rollout
from sf_core.training.cost.memory import RolloutMemory, judging_bytes, rollout_bytes
from sf_core.training.engine.lora_adapters import AdaptedWan
from sf_core.training.engine.networks import new_transformer
from sf_core.training.recipe import AdapterSettings
from tests.helpers import prompt, random_model

SIZE = (8, 8)  # 16 tokens a frame: no activation is shaped like a weight of width 40
CONFIG = sf_core.RolloutConfig(denoising_steps=(1000, 500))


def squeezed(tensor: Tensor) -> tuple[int, ...]:
    return tuple(n for n in tensor.shape if n != 1)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations have made and that are still alive.

    In the backward pass not those shaped like a weight, or a weight transposed: they are gradients.
    """

    def __init__(self, model: sf_core.CausalWan) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.in_backward = False
        shapes = {squeezed(p) for p in model.parameters()}
        self._weights = shapes | {shape[::-1] for shape in shapes}
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and id(made.untyped_storage()) not in given:
                self._count(made)
        return out

    def _count(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        if not (self.in_backward and squeezed(made) in self._weights):
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, nbytes: int) -> None:
        self.now -= nbytes


def trainable(layers: int = 4, dim: int = 40, text_len: int = 7) -> sf_core.CausalWan:
    return random_model(layers, dim, text_len=text_len).requires_grad_(True)


def measured(
    model: sf_core.CausalWan,
    config: sf_core.RolloutConfig,
    size: tuple[int, int],
    batch: int,
    frames: int,
    checkpointing: bool,
    clip_frames: int = 21,
) -> int:
    """The peak of a rollout and its backward pass."""
    model.gradient_checkpointing = checkpointing
    model.zero_grad()
    exit_step, noise = len(config.denoising_steps) - 1, sf_core.SeededNoise(0)
    with LiveBytes(model) as live:
        made = rollout(
            model,
            prompt(0, batch),
            noise,
            config,
            exit_step,
            frames,
            latent_size=size,
            clip_frames=clip_frames,
        )
        total = made.latents.sum()
        del made
        live.in_backward = True
        total.backward()
    return live.peak


# (settings of the rollout, latent size, batch, frames, clip frames)
GEOMETRIES: dict[str, tuple[dict[str, Any], tuple[int, int], int, int, int]] = {
    "everything is seen": ({}, (8, 8), 1, 12, 21),
    "a window": ({"window_frames": 6}, (8, 8), 1, 12, 21),
    "no past": ({"window_frames": 3}, (8, 8), 1, 12, 21),
    "a batch and a clamped sink": (
        {"window_frames": 8, "sink_frames": 2, "sink_position": "clamped"},
        (8, 12),
        2,
        15,
        21,
    ),
    "frame by frame": ({"chunk_frames": 1, "window_frames": 13}, (8, 8), 1, 13, 21),
    "longer than the clip": ({"window_frames": 9}, (6, 8), 2, 30, 21),
    "one chunk with a gradient": ({"first_chunk_frames": 1, "window_frames": 5}, (8, 8), 1, 13, 5),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_peak_is_predicted_closely(name: str, checkpointing: bool) -> None:
    settings, size, batch, frames, clip_frames = GEOMETRIES[name]
    model, config = trainable(), replace(CONFIG, **settings)
    peak = measured(model, config, size, batch, frames, checkpointing, clip_frames)
    predicted = rollout_bytes(
        model.arch, config, size, batch, frames, checkpointing=checkpointing, clip_frames=clip_frames
    )
    limit = 0.05 if checkpointing else 0.02
    assert abs(predicted.peak - peak) <= limit * peak


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("change", ["half precision", "a long text", "one layer", "no norms"])
def test_the_peak_is_predicted_for_other_models(change: str, checkpointing: bool) -> None:
    model = trainable(layers=1 if change == "one layer" else 4, text_len=101 if change == "a long text" else 7)
    dtype = torch.bfloat16 if change == "half precision" else torch.float32
    model.to(dtype)
    if change == "no norms":
        model.arch = replace(model.arch, qk_norm=False, cross_attn_norm=False)
        for block in model.blocks:
            block.norm3 = torch.nn.Identity()
            for attention in (block.self_attn, block.cross_attn):
                attention.norm_q = attention.norm_k = torch.nn.Identity()
    peak = measured(model, CONFIG, SIZE, 1, 12, checkpointing)
    predicted = rollout_bytes(model.arch, CONFIG, SIZE, 1, 12, dtype, checkpointing)
    assert 0.9 * peak <= predicted.peak <= 1.1 * peak


@pytest.mark.parametrize("checkpointing", [False, True])
def test_more_denoising_steps_take_no_more_memory(checkpointing: bool) -> None:
    model, few = trainable(), replace(CONFIG, window_frames=6)
    many = replace(few, denoising_steps=(1000, 900, 800, 700, 600, 500, 400, 250))
    peaks = [measured(model, config, SIZE, 1, 12, checkpointing) for config in (few, many)]
    assert peaks[0] == peaks[1]
    predicted = [rollout_bytes(model.arch, c, SIZE, 1, 12, checkpointing=checkpointing) for c in (few, many)]
    assert predicted[0] == predicted[1]


def test_with_checkpointing_a_layer_costs_a_fraction() -> None:
    peaks = {
        (layers, checkpointing): measured(trainable(layers), CONFIG, SIZE, 1, 12, checkpointing)
        for layers in (2, 6)
        for checkpointing in (False, True)
    }
    grows = {checkpointing: peaks[6, checkpointing] - peaks[2, checkpointing] for checkpointing in (False, True)}
    assert grows[True] < 0.2 * grows[False]


def test_the_parts_of_a_real_model_add_up_and_are_named() -> None:
    """Wan 2.1 1.3B at 480p, 21 latent frames, which nobody can train without checkpointing on one GPU."""
    arch = WanArchitecture(dim=1536, ffn_dim=8960, num_layers=30, num_heads=12)
    config = sf_core.RolloutConfig()
    plain, checkpointed = (rollout_bytes(arch, config, (60, 104), 1, 21, torch.bfloat16, on) for on in (False, True))
    keys_and_values = 2 * 30 * 21 * 1560 * 1536 * 2
    assert plain.past == keys_and_values
    assert plain.peak > 100 * 2**30 > 15 * 2**30 > checkpointed.peak > keys_and_values
    assert isinstance(plain, RolloutMemory)
    assert plain.describe().startswith(f"{plain.peak / 2**30:.2f} GiB beyond weights and gradients (past 5.62, text ")


def test_frames_that_do_not_cut_into_chunks_are_refused() -> None:
    with pytest.raises(ValueError, match="nearest counts that do: 9 or 12"):
        rollout_bytes(trainable().arch, CONFIG, SIZE, 1, 10)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_judges_look_at_the_whole_video_takes_what_was_predicted(adapted: bool) -> None:
    """With a feed-forward net as wide, beside the model, as those of Wan 2.1."""
    small, size, frames = random_model(1, dim=32, text_len=3).arch, (32, 32), 6
    model = new_transformer(replace(small, ffn_dim=6 * small.dim, num_layers=3), seed=0)
    judge = AdaptedWan(model, AdapterSettings(rank=1, alpha=1.0)) if adapted else model
    x, timestep = torch.randn(1, 4, frames, *size), torch.tensor([500.0])
    with torch.no_grad(), LiveBytes(model) as live:
        judge(x, timestep, prompt(0, rows=3))
    predicted = judging_bytes(model.arch, size, 1, frames, torch.float32, adapted)
    assert 0.9 * predicted <= live.peak <= 1.1 * predicted
