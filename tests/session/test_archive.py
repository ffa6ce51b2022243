"""Latents of the past take no memory of a GPU."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from sf_core.session.archive import StoredLatents


class OnGPU:
    """As much of a tensor on a GPU as storing reads."""

    device, shape = torch.device("cuda"), (1, 4, 3, 2, 2)

    def __init__(self) -> None:
        self.copy = torch.randn(self.shape)

    def cpu(self) -> Tensor:
        return self.copy


def test_latents_of_the_past_are_on_the_cpu_alone() -> None:
    latents = OnGPU()
    copy, reference = latents.copy, weakref.ref(latents)
    stored = StoredLatents(latents)  # type: ignore[arg-type]
    del latents
    assert reference() is None
    assert stored.on_cpu() is copy
