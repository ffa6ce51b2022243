"""The algorithm of Self Forcing, one chunk at a time.

A chunk starts as noise. Each step predicts its clean latents, attending to the cache of what came before, and adds
fresh noise of the next, lower level; the last prediction is the chunk. Then, when the following chunk is due, one
more pass over the clean chunk writes its keys and values into the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model.kv_cache import KeysValues, Place, RollingKVCache
from ..model.rope import rope_rotations
from ..schedule import FlowSchedule
from .blocks import Prompt
from .replay import Pass

if TYPE_CHECKING:
    from ..model.forward import WanForward

Predict = Callable[[Tensor, float], Tensor]  # (noisy latents, timestep) -> flow


def sample_chunk(
    predict: Predict, noise: Callable[[int], Tensor], steps: Sequence[float], schedule: FlowSchedule
) -> Tensor:
    """Denoise one chunk over the timesteps ``steps``; ``noise(i)`` is what step i starts from or is re-noised with.

    Returns the clean latents [B, C, F, H, W], float32.
    """
    x = noise(0)
    for i, timestep in enumerate(steps):
        x0 = schedule.to_x0(x, predict(x, timestep), timestep)
        if i + 1 < len(steps):
            x = schedule.add_noise(x0, noise(i + 1), steps[i + 1])
    return x0


class ChunkForward:
    """The passes of one model over one cache at one place: binds positions, prompt and views for `sample_chunk`.

    state: the model's `state_key`, as the prompt's keys and values depend on the weights too.
    """

    def __init__(
        self,
        model: WanForward,
        cache: RollingKVCache,
        place: Place,
        prompt: Prompt,
        latent_size: tuple[int, int],
        state: bytes,
    ) -> None:
        model.use_attention()
        self._model = model
        self._text = cache.text(state + prompt.digest, lambda: model.text_keys_values(_for_batch(prompt, cache)))
        self._views: list[KeysValues] = cache.open(place)
        rows, columns = model.arch.token_grid(latent_size)
        frames = range(place.start, place.end)
        self._rotations = rope_rotations(frames, rows, columns, model.arch.head_dim, model.device)

    def flow(self, x: Tensor, timestep: float) -> Tensor:
        return self._model.flow_over_cache(x, self._at(x, timestep), self._rotations, self._text, self._views)

    def write(self, x: Tensor, timestep: float) -> None:
        self._model.write_over_cache(x, self._at(x, timestep), self._rotations, self._text, self._views)

    @staticmethod
    def _at(x: Tensor, timestep: float) -> Tensor:
        return torch.full((x.shape[0], 1), timestep, dtype=torch.float32, device=x.device)


def _for_batch(prompt: Prompt, cache: RollingKVCache) -> Tensor:
    return prompt.text.expand(cache.shape.batch, -1, -1)


def write_block(model: WanForward, cache: RollingKVCache, todo: Pass, state: bytes) -> None:
    """The forward of one pass: leaves the block's clean keys and values in the cache's front, to be committed."""
    latents = todo.block.latents.get()
    forward = ChunkForward(model, cache, todo.place, todo.prompt, (latents.shape[3], latents.shape[4]), state)
    forward.write(latents, todo.block.timestep)
