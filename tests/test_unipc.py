"""The UniPC solver: the reference's numbers after each step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from sf_core.unipc import UniPC, solve, unipc_steps
from tests.helpers import PARITY, relative

SIGMAS = {4: [0.9997998, 0.9372655, 0.8330554, 0.6246874], 2: [0.9997998, 0.8330554]}
TIMESTEPS = {4: [999, 937, 833, 624], 2: [999, 833]}


@pytest.mark.parametrize("count", [2, 4])
def test_every_step_gives_the_sample_of_the_reference(count: int) -> None:
    tensors = load_file(PARITY / f"unipc_{count}.safetensors")
    steps = unipc_steps(count, 5.0)
    assert [step.sigma for step in steps] == pytest.approx(SIGMAS[count], abs=1e-7)
    assert [step.timestep for step in steps] == TIMESTEPS[count]
    solver, x = UniPC(steps), tensors["sample"]
    for index in range(count):
        x = solver.step(x, tensors[f"flow.{index}"])
        assert relative(x, tensors[f"output.{index}"]) <= 1e-6


def test_two_steps_are_exactly_eulers() -> None:
    tensors = load_file(PARITY / "unipc_2.safetensors")
    first, second = unipc_steps(2, 5.0)
    x = tensors["sample"]
    euler = x + (second.sigma - first.sigma) * tensors["flow.0"]
    assert relative(UniPC((first, second)).step(x, tensors["flow.0"]), euler) < 1e-6
    assert first.correct == second.correct == ()


@given(count=st.integers(1, 12), shift=st.floats(0.5, 20), seed=st.integers(0, 9))
def test_a_flow_that_leads_straight_to_a_clip_gives_that_clip(count: int, shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise, clip = (torch.randn(1, 2, 3, 2, 2, generator=generator) for _ in range(2))
    steps = unipc_steps(count, shift)
    sigma = iter(steps)
    assert relative(solve(lambda x, _: (x - clip) / next(sigma).sigma, noise, steps), clip) < 1e-5
    timesteps = [step.timestep for step in steps]
    assert timesteps == sorted(timesteps, reverse=True)


def test_a_chunk_has_a_solver_of_its_own() -> None:
    noise = torch.randn(1, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    steps = unipc_steps(4, 5.0)

    def predict(x: Tensor, timestep: float) -> Tensor:
        return x * (timestep / 1000)

    assert torch.equal(solve(predict, noise, steps), solve(predict, noise, steps))


def test_no_step_reads_a_value_from_the_device() -> None:
    x = torch.empty(1, 2, 3, 2, 2, device="meta")  # a read would raise
    assert solve(lambda x, _: x, x, unipc_steps(4, 5.0)).shape == x.shape
