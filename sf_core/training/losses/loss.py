"""What a loss gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """value: a scalar to call ``backward`` on. logs: scalars to look at, without gradient, still on their device."""

    value: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the elements that ``mask`` lets through; no shape depends on the mask's values."""
    return values.mean() if mask is None else (values * mask).sum() / mask.sum()
