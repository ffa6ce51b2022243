"""Every rule runs without data: fake tensors and meta tensors have no values, and ``meta`` stands for an accelerator.

So no rule reads a value of a tensor (``.item()``, a shape that depends on data) in a pass, and none leaves a tensor on
the CPU. What reads values on purpose is outside the passes and replaced here: the tables of the schedule, digests, the
check of a finished chunk, and the copies of latents in RAM.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import sf_core
from sf_core.model.wan import CausalWan
from sf_core.schedule import FlowSchedule
from sf_core.session.archive import StoredLatents
from sf_core.session.blocks import Event
from tests.helpers import SIZE, random_model
from tests.session.test_rules import every_rule, start


@pytest.fixture
def values_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(self: StoredLatents, latents: Tensor) -> None:
        self._device, self._shape, self._tensor, self._archived = latents.device, tuple(latents.shape), latents, None

    monkeypatch.setattr(StoredLatents, "__init__", keep)
    monkeypatch.setattr(StoredLatents, "get", lambda self: self._tensor)
    monkeypatch.setattr(StoredLatents, "move_to", lambda self, archive: None)
    monkeypatch.setattr("sf_core.session.blocks.tensor_digest", lambda tensor: bytes(16))
    monkeypatch.setattr("sf_core.session.cache_point.tensor_digest", lambda tensor: bytes(16))
    monkeypatch.setattr(FlowSchedule, "warp", lambda self, steps: tuple(map(float, steps)))
    monkeypatch.setattr(FlowSchedule, "sigma", lambda self, timestep: timestep / 1000)
    isfinite = torch.isfinite
    monkeypatch.setattr(torch, "isfinite", lambda x: np.True_ if x.ndim == 5 else isfinite(x))  # latents


def without_data(session: sf_core.Session, device: str) -> sf_core.Session:
    """The session over a model of the same sizes whose weights have no values."""
    assert isinstance(session.model, CausalWan)
    with torch.device("meta"):
        model = CausalWan(session.model.arch)
    empty = {name: torch.empty(p.shape, device=device) for name, p in model.named_parameters()}
    model.load_state_dict(empty, assign=True)
    model.attention = "sdpa"

    def reencode(_: Any) -> Tensor:
        return torch.zeros(1, 4, 1, *SIZE, device=device)

    return replace(session, model=model, reencode=reencode)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # of weights, which digests name
@every_rule
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_rule_runs_without_data_on_any_device(values_are_not_read: None, rule: str, device: str) -> None:
    session = start(rule, random_model(layers=1))
    session.config.timesteps(0)  # a solver's factors are made once, before the passes
    with FakeTensorMode(allow_non_fake_inputs=True) if device == "cpu" else nullcontext(), torch.no_grad():
        session = without_data(session, device)
        for chunk in range(6):  # every ring rolls and every bank is full
            if chunk == 2 and session.config.pin_shots:
                session = replace(session, event=Event(shot=True))
            session, latents = session.next_chunk()
            assert (latents.device.type, latents.shape) == (device, (1, 4, 2, *SIZE))
