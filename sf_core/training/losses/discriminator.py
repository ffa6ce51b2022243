"""The GAN's critic: a diffusion model with a head that tells real videos from generated ones.

The parameters have the names of the reference's checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...model.forward import LayerAttention
from ...model.wan import AttentionLayers, CausalWan

TIME_SCALE = 10.0  # factor of the time embedding in the head's input, as in the reference


class Discriminator(nn.Module):
    """Logits [B, 1] of noisy videos [B, C, F, H, W] at timesteps [B] with their text: high for real.

    At each of several blocks of ``model``, a learnt token attends to the block's output for the whole video. An MLP
    judges the tokens.

    Args:
        model: The diffusion model that computes the features.
        layers: Indices of the blocks. None: 13, 21 and 29 of 30, or the same relative depths.
        with_time: Also give the MLP the timestep.
        hidden: Width of the MLP; None: the model's width, as in the reference.
        ffn_dim: Width of the tokens' feed-forward nets; None: 8192 for a model of width 1536 and in proportion, as in
            the reference.
        seed: Seed of the new parameters.

    Raises:
        ValueError: If ``layers`` are not rising indices of blocks.
    """

    def __init__(
        self,
        model: CausalWan,
        layers: tuple[int, ...] | None = None,
        with_time: bool = False,
        hidden: int | None = None,
        ffn_dim: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        depth, dim = model.arch.num_layers, model.arch.dim
        self.layers = layers or tuple(sorted({max(0, round(depth * part) - 1) for part in (14 / 30, 22 / 30, 1.0)}))
        if list(self.layers) != sorted(set(self.layers)) or not 0 <= self.layers[0] <= self.layers[-1] < depth:
            raise ValueError(f"layers is {layers}; expected rising indices of blocks, 0 to {depth - 1}")
        self.with_time = with_time
        count, hidden = len(self.layers), hidden or dim
        self.model = model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._register_tokens = _RegisterTokens(count, dim, model.arch.eps)
            ffn_dim = ffn_dim or round(dim * 8192 / 1536)
            self._gan_ca_blocks = nn.ModuleList(_TokenBlock(model, ffn_dim) for _ in self.layers)
            width = dim * (count + with_time)
            self._cls_pred_branch = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, 1)
            )
        self.to(model.device)

    def forward(self, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """Return the logits [B, 1] of ``x`` [B, C, F, H, W] at ``timestep`` [B]."""
        tokens = self._register_tokens().expand(x.shape[0], -1, -1)
        features = self.model.features(x, timestep, text, self.layers)
        judged = [
            block(feature, tokens[:, i : i + 1], self.model.attend)
            for i, (block, feature) in enumerate(zip(self._gan_ca_blocks, features, strict=True))
        ]
        if self.with_time:
            judged.append(TIME_SCALE * self.model.embed_time(timestep.reshape(-1, 1))[0])
        return self._cls_pred_branch(torch.cat(judged, dim=1).flatten(1)).float()


class _RegisterTokens(nn.Module):
    def __init__(self, count: int, dim: int, eps: float) -> None:
        super().__init__()
        self.register_tokens = nn.Parameter(0.02 * torch.randn(count, dim))
        self.rms_norm = nn.RMSNorm(dim, eps=eps)

    def forward(self) -> Tensor:
        return self.rms_norm(self.register_tokens)


class _TokenBlock(nn.Module):
    """One token [B, 1, dim] that attends to a video's features [B, L, dim]."""

    def __init__(self, model: CausalWan, ffn_dim: int) -> None:
        super().__init__()
        dim, eps = model.arch.dim, model.arch.eps
        self.heads = model.arch.num_heads
        self.norm3 = nn.LayerNorm(dim, eps)
        self.cross_attn = AttentionLayers(dim, eps, model.arch.qk_norm)
        self.norm2 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU("tanh"), nn.Linear(ffn_dim, dim))

    def forward(self, features: Tensor, token: Tensor, attend: LayerAttention) -> Tensor:
        attn, features = self.cross_attn, self.norm3(features)
        parts = (attn.norm_q(attn.q(token)), attn.norm_k(attn.k(features)), attn.v(features))
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        token = token + attn.o(attend(0, q, k, v).flatten(2))
        return token + self.ffn(self.norm2(token))
