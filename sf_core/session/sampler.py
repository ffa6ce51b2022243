"""The algorithm of Self Forcing, one chunk at a time.

A chunk starts as noise. Each step attends to the cache of earlier chunks, predicts the clean latents, and adds fresh
noise of the next, lower level. The last prediction is the chunk. Right before the next chunk, one more pass over the
clean chunk writes its keys and values into the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..cuda_streams import to_device_async
from ..model.causal_model import CausalModel
from ..model.kv_cache import RollingKVCache
from ..model.layer_view import LayerView
from ..model.place import Place
from ..model.wide_views import open_in_flight, open_wide
from ..schedule import FlowSchedule
from ..unipc import solve, unipc_steps
from .blocks import Prompt
from .replay import CachePass

Predict = Callable[[Tensor, float], Tensor]  # (noisy latents, timestep) -> flow


def sample_chunk(
    predict: Predict,
    noise: Callable[[int], Tensor],
    steps: Sequence[float],
    schedule: FlowSchedule,
    source: Tensor | None = None,
    noise_share: float = 1.0,
) -> Tensor:
    """Denoise one chunk.

    Args:
        predict: Flow prediction of the model.
        noise: Noise by step: the initial noise at step 0, then what is added before step i.
        steps: Timesteps, falling.
        schedule: Conversion between noisy latents, flow and clean latents.
        source: Clean latents that the first step begins with, at its noise level. None: it begins with noise alone.
        noise_share: With a source, the share of its noise level at which a step begins.

    Returns:
        The clean latents [B, C, F, H, W], float32; the source itself if there are no steps.
    """
    if source is None:
        x = schedule.first_noise(noise(0), steps[0])
    elif steps:
        x = _noised(source, noise(0), steps[0], schedule, noise_share)
    else:
        return source.clone()
    for i, timestep in enumerate(steps):
        x0 = schedule.to_x0(x, predict(x, timestep), timestep)
        if i + 1 < len(steps):
            x = _noised(x0, noise(i + 1), steps[i + 1], schedule, noise_share)
    return x0


def _noised(x0: Tensor, noise: Tensor, timestep: float, schedule: FlowSchedule, share: float) -> Tensor:
    if share == 1:
        return schedule.add_noise(x0, noise, timestep)
    level = share * schedule.sigma(timestep)
    return (1 - level) * x0 + level * noise


def denoise(
    predict: Predict,
    noise: Callable[[int], Tensor],
    config: RolloutConfig,
    steps: Sequence[float],
    source: Tensor | None = None,
    noise_share: float = 1.0,
) -> Tensor:
    """Denoise a chunk as the settings say. Arguments as for `sample_chunk`."""
    if config.solver == "unipc":
        assert config.solver_steps is not None
        return solve(predict, noise(0), unipc_steps(config.solver_steps, config.shift))
    return sample_chunk(predict, noise, steps, config.noise_levels, source, noise_share)


def hold(x: Tensor, given: Tensor) -> Tensor:
    """Replace the first latent frames of the chunk ``x`` by ``given``."""
    return torch.cat([given, x[:, :, given.shape[2] :]], dim=2)


class ChunkForward:
    """The passes of one model over one cache at one place. It binds positions, prompt and cache views.

    ``state`` is the model's `state_key`: the prompt's keys and values depend on the weights too.
    The views are valid until the cache's next `open`.
    """

    def __init__(
        self,
        model: CausalModel,
        cache: RollingKVCache,
        place: Place,
        prompt: Prompt,
        latent_size: tuple[int, int],
        state: bytes,
        views: Sequence[LayerView] | None = None,
    ) -> None:
        model.use_attention()
        self._model = model
        self._text = cache.text(state + prompt.digest, lambda: model.text_keys_values(_for_batch(prompt, cache)))
        if views is None:
            views = open_in_flight(cache, place) if cache.shape.is_wide else cache.open(place)
        self._views = views
        self._rotations = model.rotations(place.positions, latent_size)

    def flow(self, x: Tensor, timestep: float | Sequence[float]) -> Tensor:
        """Flow of the noisy chunk ``x``, at one timestep or one for each frame."""
        return self._model.flow_over_cache(x, self._at(x, timestep), self._rotations, self._text, self._views)

    def write(self, x: Tensor, timestep: float | Sequence[float]) -> None:
        """Leave the keys and values of the clean chunk ``x`` in the front of the cache."""
        self._model.write_over_cache(x, self._at(x, timestep), self._rotations, self._text, self._views)

    @staticmethod
    def _at(x: Tensor, timestep: float | Sequence[float]) -> Tensor:
        """One timestep [B, 1], or one for each frame [B, F]."""
        if isinstance(timestep, float | int):
            return torch.full((x.shape[0], 1), timestep, dtype=torch.float32, device=x.device)
        frames = torch.tensor(list(timestep), dtype=torch.float32)
        return to_device_async(frames, x.device).expand(x.shape[0], -1)


def _for_batch(prompt: Prompt, cache: RollingKVCache) -> Tensor:
    return prompt.text.expand(cache.shape.batch, -1, -1)


def write_pass(model: CausalModel, cache: RollingKVCache, cache_pass: CachePass, state: bytes) -> Callable[[], None]:
    """Make the keys and values of a pass over clean latents, and return what stores them in the cache.

    A wide pass stores all layers but the last on its way.
    """
    latents, timesteps = cache_pass.frames()
    place, keep_sink = cache_pass.place, cache_pass.keep_sink
    wide = cache_pass.is_wide or cache.shape.is_wide
    views = open_wide(cache, place, keep_sink, cache_pass.bank_frame, cache_pass.is_wide) if wide else None
    size = (latents.shape[3], latents.shape[4])
    forward = ChunkForward(model, cache, place, cache_pass.prompt, size, state, views)
    forward.write(latents, timesteps[0] if len(set(timesteps)) == 1 else timesteps)
    return partial(cache.commit, place, keep_sink) if views is None else views.close
