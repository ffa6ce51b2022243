"""The Wan 2.1 transformer as a tree of modules named as in the original weights: `CausalWan`.

What is computed over the tree stands in `wan_forward.py`.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ..hashing import digest, weights_fingerprint
from .architecture import WanArchitecture
from .attention import BACKENDS, Attention, choose_attention
from .cache_pool import CachePool
from .cuda_graphs import Recorded
from .forward import WanForward


class AttentionLayers(nn.Module):
    """The projections of one attention; norms run over the full width, all heads together."""

    def __init__(self, dim: int, eps: float, qk_norm: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = nn.RMSNorm(dim, eps=eps) if qk_norm else nn.Identity()
        self.norm_k = nn.RMSNorm(dim, eps=eps) if qk_norm else nn.Identity()


class InPlaceGELU(nn.Module):
    """GELU (tanh) that overwrites its input, the large one of the feed-forward net, unless a gradient needs it."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return nn.functional.gelu(x, approximate="tanh")
        return torch.ops.aten.gelu_(x, approximate="tanh")


class Block(nn.Module):
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


class Head(nn.Module):
    def __init__(self, arch: WanArchitecture) -> None:
        super().__init__()
        pt, ph, pw = arch.patch_size
        self.norm = nn.LayerNorm(arch.dim, arch.eps, elementwise_affine=False)
        self.head = nn.Linear(arch.dim, pt * ph * pw * arch.out_dim)
        self.modulation = nn.Parameter(torch.zeros(1, 2, arch.dim))


class CausalWan(WanForward, nn.Module):
    """The Wan 2.1 text-to-video transformer with its pool of live caches. Build it with `sf_core.load_model`.

    ``attention`` is ``auto``, a name of `sf_core.model.attention.BACKENDS`, or a function (q, k, v) -> out over
    [B, tokens, heads, D]; it may be changed at any time.
    """

    def __init__(self, arch: WanArchitecture) -> None:
        super().__init__()
        self.arch = arch
        dim = arch.dim
        self.patch_embedding = nn.Conv3d(arch.in_dim, dim, arch.patch_size, arch.patch_size)
        self.text_embedding = nn.Sequential(nn.Linear(arch.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(arch.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(arch) for _ in range(arch.num_layers))
        self.head = Head(arch)
        self.attention: str | Attention = "auto"
        self.caches = CachePool()
        self.metadata: dict[str, str] = {}  # of the checkpoint

    @property
    def dtype(self) -> torch.dtype:
        return self.head.modulation.dtype

    @property
    def device(self) -> torch.device:
        return self.head.modulation.device

    forward = WanForward.predict

    def compile(self, **options: Any) -> None:
        """Compile what blocks do around their self-attention with ``torch.compile(**options)``.

        All blocks share the graphs, which no window, prompt or position changes: they are compiled in seconds, once.
        """
        # of positions, which are complex numbers before they come to be used
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
        self._to_attention = torch.compile(self._to_attention, **options)  # type: ignore[method-assign]
        self._from_attention = torch.compile(self._from_attention, **options)  # type: ignore[method-assign]

    def record(self) -> None:
        """On a GPU, replay the two passes over a full ring as CUDA graphs, compiled or not: see `Recorded`."""
        state = lambda: (self.head.modulation.data_ptr(), self._attention)  # noqa: E731
        self.flow_over_cache = Recorded(self.flow_over_cache, state)  # type: ignore[method-assign, assignment]
        self.write_over_cache = Recorded(self.write_over_cache, state)  # type: ignore[method-assign, assignment]

    def release_cache(self) -> None:
        """Free every live cache that is not at work. Changes no result: a session rebuilds what it needs."""
        self.caches.release()

    def state_key(self) -> bytes:
        parameters = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters()]
        return digest(repr((parameters, self.dtype, self.attention)).encode())

    @property
    def fingerprint(self) -> str:
        return weights_fingerprint(self.named_parameters())

    def use_attention(self) -> None:
        if callable(self.attention):
            self._attention = self.attention
        else:
            self._attention = BACKENDS[choose_attention(self.attention, self.device, self.dtype)]
