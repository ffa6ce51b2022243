"""Attention over keys and values that come part by part, as if they were one: a running softmax.

Each part's attention comes with the log-sum-exp of its scores, which says how much it weighs beside the others. Kernels
that give it are torch's own. So the backend that was chosen for a model (attention.py) is not called here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# (q, k, v), [B, heads, tokens, D] each -> attention of that shape, and the log-sum-exp of the scores [B, heads, tokens]
PartKernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
QUERIES_AT_ONCE = 512  # of `by_products`, which holds their scores


def attend_to_parts(q: Tensor, parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Attention of ``q`` to all keys and values of ``parts``, [B, tokens, heads, D] each.

    A part is used up before the next one is asked for, so all of them may be views of one buffer.

    Returns:
        Shaped like ``q`` and in its dtype; parts are merged in float32, or in the dtype if that is wider.
    """
    q = q.transpose(1, 2)
    kernel, wide = part_kernel(q), torch.promote_types(q.dtype, torch.float32)
    merged, weight = None, None
    for k, v in parts:
        out, log_sum = kernel(q, k.transpose(1, 2), v.transpose(1, 2))
        if merged is None or weight is None:
            merged, weight = out.to(wide), log_sum
        else:
            merged = merged.lerp_(out.to(wide), torch.sigmoid(log_sum - weight).to(wide).unsqueeze(-1))
            weight = torch.logaddexp(weight, log_sum)
    assert merged is not None
    return merged.to(q.dtype).transpose(1, 2)


def part_kernel(q: Tensor) -> PartKernel:
    """The fastest kernel for queries [B, heads, tokens, D] that gives the log-sum-exp."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if q.device.type != "cuda" or q.shape[-1] % 8:
        return by_products
    half = q.dtype in (torch.float16, torch.bfloat16)
    if half and q.shape[-1] <= 256 and torch.cuda.get_device_capability(q.device) >= (8, 0):
        return _flash
    return by_products if q.dtype == torch.float64 else _memory_efficient


def _flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, log_sum, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    return out, log_sum


def _memory_efficient(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, log_sum, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
    return out, log_sum[..., : q.shape[2]]  # it comes padded


def by_products(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix products and a softmax, for devices without a kernel that gives the log-sum-exp."""
    outs, log_sums = [], []
    for queries in (q * q.shape[-1] ** -0.5).split(QUERIES_AT_ONCE, dim=2):
        scores = (queries @ k.transpose(-2, -1)).to(torch.promote_types(q.dtype, torch.float32))
        log_sums.append(scores.logsumexp(-1))
        outs.append((scores - log_sums[-1].unsqueeze(-1)).exp_().to(v.dtype) @ v)
    return torch.cat(outs, dim=2), torch.cat(log_sums, dim=2)
