"""The result of a loss: a scalar to differentiate, and numbers for the log."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A loss and the numbers that go with it.

    Attributes:
        value: Scalar to call ``backward`` on.
        logs: Scalars for the log, without gradient, still on their device.
    """

    value: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the elements where ``mask`` is True; no shape depends on the mask's values."""
    return values.mean() if mask is None else (values * mask).sum() / mask.sum()
