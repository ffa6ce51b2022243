"""The protocol between a session and its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..config import RolloutConfig
from .architecture import WanArchitecture
from .cache_pool import CachePool
from .cache_shape import CacheShape
from .layer_view import KeysValues, LayerView


class CausalModel(Protocol):
    """Everything that a `Session` needs of a model. Wan 2.1 (`WanForward`) implements it.

    A session owns the order of passes, the noise and the record. The model owns the weights, the positions of tokens,
    the attention kernel and the pool of live caches.
    """

    @property
    def arch(self) -> WanArchitecture:
        """Sizes; a session reads ``in_dim``, ``text_dim``, ``num_layers`` and ``token_grid``."""

    @property
    def caches(self) -> CachePool:
        """The live caches of this model's sessions."""

    @property
    def rollout_config(self) -> RolloutConfig | None:
        """The checkpoint's own settings, used where the caller gives none."""

    @property
    def latent_size(self) -> tuple[int, int] | None:
        """The checkpoint's own (height, width) of latents."""

    @property
    def device(self) -> torch.device:
        """The device of latents, keys and values."""

    @property
    def fingerprint(self) -> str:
        """Name of the weights, whatever their dtype or file; saved sessions carry it."""

    def description(self) -> dict[str, str]:
        """Description of the weights, by which a saved session finds them in another number format."""

    def is_model(self, name: str, description: Mapping[str, str] | None) -> bool:
        """Whether this model made a session that carries the name and, unless it is an old one, the description."""

    def state_key(self) -> bytes:
        """Changes whenever keys and values made from now on would differ from those made before."""

    def check_text(self, text: Tensor) -> None:
        """Raises ValueError for prompt embeddings that the model cannot read."""

    def cache_shape(self, config: RolloutConfig, latent_size: tuple[int, int], batch: int) -> CacheShape:
        """The shape of the cache of a session with these settings."""

    def use_attention(self) -> None:
        """Choose the attention kernel that the following passes call."""

    def rotations(self, frames: Sequence[int], latent_size: tuple[int, int]) -> Tensor:
        """Rotary positions of a chunk's tokens; ``frames`` are absolute latent frames."""

    def text_keys_values(self, text: Tensor) -> list[KeysValues]:
        """Cross-attention keys and values of ``text`` [B, rows, text_dim], a pair for each layer."""

    def flow_over_cache(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[LayerView]
    ) -> Tensor:
        """Flow [B, C, F, H, W] of the noisy chunk ``x`` at ``timestep`` [B, 1]; see `WanForward.flow_over_cache`."""

    def write_over_cache(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[LayerView]
    ) -> None:
        """Leave the clean chunk's keys and values in ``views``."""
