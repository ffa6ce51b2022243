"""`CausalWan`: the Wan 2.1 transformer as a tree of modules with the names of the original weights.

forward.py has the computation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..hashing import digest
from .architecture import WanArchitecture
from .attention import BACKENDS, Attention, choose_attention
from .cache_pool import CachePool
from .cuda_graphs import RecordedPass
from .identity import describe_weights, weights_fingerprint
from .layer_view import KeysValues, LayerView
from .sequence_forward import SequenceForward
from .two_sets import memory_name


class AttentionLayers(nn.Module):
    """Projections of one attention. Its norms run over the full width, all heads together."""

    def __init__(self, dim: int, eps: float, qk_norm: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = nn.RMSNorm(dim, eps=eps) if qk_norm else nn.Identity()
        self.norm_k = nn.RMSNorm(dim, eps=eps) if qk_norm else nn.Identity()


class InPlaceGELU(nn.Module):
    """GELU (tanh) that overwrites its large input, unless a gradient needs it."""

    def forward(self, x: Tensor) -> Tensor:
        """GELU of ``x``."""
        if torch.is_grad_enabled():
            return nn.functional.gelu(x, approximate="tanh")
        return torch.ops.aten.gelu_(x, approximate="tanh")


class WanBlock(nn.Module):
    """One transformer block: self-attention, cross-attention, feed-forward net."""

    def __init__(self, arch: WanArchitecture) -> None:
        super().__init__()
        dim, eps = arch.dim, arch.eps
        self.norm1 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.self_attn = AttentionLayers(dim, eps, arch.qk_norm)
        self.norm3 = nn.LayerNorm(dim, eps) if arch.cross_attn_norm else nn.Identity()
        self.cross_attn = AttentionLayers(dim, eps, arch.qk_norm)
        self.norm2 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = nn.Sequential(nn.Linear(dim, arch.ffn_dim), InPlaceGELU(), nn.Linear(arch.ffn_dim, dim))
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))

    def forward(self, compute: Callable[..., Any], *tensors: Any) -> Any:
        """Call ``compute``; module hooks, such as FSDP's that gather weights, run around it."""
        return compute(*tensors)


class Head(nn.Module):
    """Tokens to patches of latents."""

    def __init__(self, arch: WanArchitecture) -> None:
        super().__init__()
        pt, ph, pw = arch.patch_size
        self.norm = nn.LayerNorm(arch.dim, arch.eps, elementwise_affine=False)
        self.head = nn.Linear(arch.dim, pt * ph * pw * arch.out_dim)
        self.modulation = nn.Parameter(torch.zeros(1, 2, arch.dim))


class CausalWan(SequenceForward, nn.Module):
    """The Wan 2.1 text-to-video transformer with its pool of live caches. Build it with `sf_core.load_model`.

    Attributes:
        arch: Sizes.
        attention: ``auto``, a name of `sf_core.model.attention.BACKENDS`, or a function (q, k, v) -> out over tensors
            [B, tokens, heads, D]. It may change at any time.
        caches: The live KV caches.
        metadata: Metadata of the checkpoint.
    """

    def __init__(self, arch: WanArchitecture) -> None:
        super().__init__()
        self.arch = arch
        dim = arch.dim
        self.patch_embedding = nn.Conv3d(arch.in_dim, dim, arch.patch_size, arch.patch_size)
        self.text_embedding = nn.Sequential(nn.Linear(arch.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(arch.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(WanBlock(arch) for _ in range(arch.num_layers))
        self.head = Head(arch)
        self.memory: CausalWan | None = None  # the second set of weights, see `with_memory`
        self.attention: str | Attention = "auto"
        self.caches = CachePool()
        self.metadata: dict[str, str] = {}
        self._description: tuple[bytes, dict[str, str]] = (b"", {})
        self._compiled: tuple[Callable[..., Any], Callable[..., Any]] | None = None
        self._recorded: tuple[RecordedPass, RecordedPass] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, and of keys and values."""
        return self.head.modulation.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.head.modulation.device

    @property
    def writer(self) -> CausalWan:
        """See `WanForward.writer`."""
        return self.memory or self

    def with_memory(self, memory: CausalWan) -> Self:
        """Let ``memory``, a model of the same sizes, make every pass that writes the cache (SGF+). Returns itself.

        Raises:
            ValueError: The models differ in size, or one of them has two sets already.
        """
        if memory.arch != self.arch:
            raise ValueError(f"the second set of weights is of {memory.arch}, the first of {self.arch}: not one model")
        if memory.memory is not None or self.memory is not None:
            raise ValueError("a model has one second set of weights: it has one already")
        self.memory = memory
        return self

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """All parameters, those of the second set under the names that published files have (`memory_name`)."""
        for name, parameter in self.named_parameters():
            second = name.startswith("memory.")
            yield (memory_name(name.removeprefix("memory.")) if second else name), parameter

    forward = SequenceForward.predict

    def like(self, **options: Any) -> Self:
        """An empty model (weights on the meta device) of the same class, architecture and settings."""
        with torch.device("meta"):
            other = type(self)(self.arch, **options)
        other.copy_settings(self)
        return other

    def copy_settings(self, other: CausalWan) -> None:
        """Take over everything of ``other`` that is not a weight."""
        self.attention, self.metadata = other.attention, other.metadata
        self.rollout_config, self.latent_size = other.rollout_config, other.latent_size

    def compile(self, **options: Any) -> None:
        """Compile what blocks compute around their self-attention with ``torch.compile(**options)``.

        All blocks share the graphs, which no window, prompt or position changes: they are compiled in seconds, once.
        """
        # rotary positions are complex numbers until they are applied
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
        if self.memory is not None:
            self.memory.compile(**options)
        before, after = self._before_attention, self._after_attention
        self._compiled = torch.compile(before, **options), torch.compile(after, **options)

    @property
    def block_functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The two halves of a block, compiled after `compile`."""
        return self._compiled or super().block_functions

    def call_block(self, block: Any, compute: Callable[..., Any], *tensors: Any) -> Any:
        """Call ``compute`` as the block's forward."""
        return block(compute, *tensors)

    def record(self) -> None:
        """On a GPU, replay the two passes over a full ring as CUDA graphs, compiled or not: see `RecordedPass`."""
        if self.memory is not None:
            self.memory.record()

        def state() -> object:
            return self.head.modulation.data_ptr(), self._attention

        self._recorded = RecordedPass(super().flow_over_cache, state), RecordedPass(super().write_over_cache, state)

    def flow_over_cache(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[LayerView]
    ) -> Tensor:
        """See `WanForward.flow_over_cache`; replayed after `record`."""
        recorded = self._recorded if isinstance(views, list) else None  # else made layer by layer: one buffer for all
        run: Callable[..., Any] = super().flow_over_cache if recorded is None else recorded[0]
        return run(x, timestep, rotations, text, views)

    def write_over_cache(
        self, x: Tensor, timestep: Tensor, rotations: Tensor, text: Sequence[KeysValues], views: Sequence[LayerView]
    ) -> None:
        """See `WanForward.write_over_cache`; replayed after `record`."""
        own = self._recorded if self.memory is None and isinstance(views, list) else None  # the second set has its own
        run = super().write_over_cache if own is None else own[1]
        run(x, timestep, rotations, text, views)

    def release_cache(self) -> None:
        """Free every live cache that is not in use. Changes no result: a session rebuilds the cache that it needs."""
        self.caches.release()

    def state_key(self) -> bytes:
        """Digest that changes with the weights, their dtype and the attention kernel."""
        parameters = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters()]
        return digest(repr((parameters, self.dtype, self.attention)).encode())

    @property
    def fingerprint(self) -> str:
        """Name of the weights, whatever their dtype."""
        return weights_fingerprint(self.named_weights())

    def description(self) -> dict[str, str]:
        """Description of the weights, see `describe_weights`; computed once for each state of theirs."""
        state = self.state_key()
        if self._description[0] != state:
            self._description = state, describe_weights(self.named_weights())
        return self._description[1]

    def use_attention(self) -> None:
        """Choose the attention kernel that the following passes call."""
        if self.memory is not None:
            self.memory.attention = self.attention
            self.memory.use_attention()
        if callable(self.attention):
            self._attention = self.attention
        else:
            self._attention = BACKENDS[choose_attention(self.attention, self.device, self.dtype)]
