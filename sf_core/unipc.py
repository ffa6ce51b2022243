"""UniPC, a predictor-corrector solver for a few flow-matching steps, as LongLive 2.0 integrates each chunk.

With ``alpha = 1 - sigma`` and ``lambda = ln(alpha / sigma)``, a step is a linear combination of the sample and of the
last clean predictions. The factors are computed once, in float64, so no step computes or reads a scalar on the device.
Source: Zhao et al., UniPC (2023), of order 2 with B(h) = exp(h) - 1, on data predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .schedule import TRAIN_STEPS

FIRST_SIGMA = 0.999  # of the schedule before it is shifted
ORDER = 2


@dataclass(frozen=True)
class Step:
    """The factors of one step.

    Attributes:
        timestep: Given to the network: a whole number, cut off as the reference does.
        sigma: Noise level of the sample.
        correct: Factors of the sample of the step before, and of the clean predictions, the newest first. Empty: the
            step corrects nothing.
        predict: Factors of the sample, and of the clean predictions, the newest first. Empty: the last step, whose
            clean prediction is the result.
    """

    timestep: float
    sigma: float
    correct: tuple[float, ...]
    predict: tuple[float, ...]


@lru_cache(maxsize=32)
def unipc_steps(count: int, shift: float) -> tuple[Step, ...]:
    """The steps of a solver with ``count`` network calls.

    Args:
        count: Number of steps, from 1 on.
        shift: Timestep shift of the flow schedule.
    """
    linear = torch.linspace(FIRST_SIGMA, 0, count + 1, dtype=torch.float64)[:-1]
    # rounded to float32 as in the reference: its timesteps are cut off from these
    shifted = (shift * linear / (1 + (shift - 1) * linear)).to(torch.float32).tolist()
    sigmas = [*shifted, 0.0]
    orders = [min(ORDER, count - index, index + 1) for index in range(count)]
    return tuple(
        Step(
            timestep=float(int(TRAIN_STEPS * sigmas[index])),
            sigma=sigmas[index],
            # what the last step would correct is not used any more
            correct=_corrector(sigmas, index, orders[index - 1]) if 0 < index < count - 1 else (),
            predict=_predictor(sigmas, index, orders[index]) if index < count - 1 else (),
        )
        for index in range(count)
    )


def _lambda(sigma: float) -> float:
    return math.log(1 - sigma) - math.log(sigma)


def _predictor(sigmas: Sequence[float], index: int, order: int) -> tuple[float, ...]:
    """Factors of (sample, newest prediction, the one before) for the sample of the next step."""
    now, following = sigmas[index], sigmas[index + 1]
    h = _lambda(following) - _lambda(now)
    reach = (1 - following) * math.expm1(-h)
    if order == 1:
        return following / now, -reach
    share = 0.5 * h / (_lambda(sigmas[index - 1]) - _lambda(now))
    return following / now, -reach * (1 - share), -reach * share


def _corrector(sigmas: Sequence[float], index: int, order: int) -> tuple[float, ...]:
    """Factors of (sample of the step before, newest prediction, the ones before) for the corrected sample."""
    before, now = sigmas[index - 1], sigmas[index]
    h = _lambda(now) - _lambda(before)
    step = math.expm1(-h)
    reach = (1 - now) * step
    if order == 1:
        return now / before, -reach * 0.5, -reach * 0.5
    ratio = (_lambda(sigmas[index - 2]) - _lambda(before)) / h
    first = step / -h - 1
    second = first / -h - 0.5
    # [[1, 1], [ratio, 1]] @ (older, newest) = (first, 2 * second) / step
    older = (first - 2 * second) / step / (1 - ratio)
    newest = first / step - older
    return now / before, -reach * newest, -reach * (1 - older / ratio - newest), -reach * older / ratio


class UniPC:
    """The state of one solver: the last corrected sample and the last clean predictions. One for each chunk."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = iter(steps)
        self._sample: Tensor | None = None
        self._clean: list[Tensor] = []  # newest first

    def step(self, x: Tensor, flow: Tensor) -> Tensor:
        """Take the next step.

        Args:
            x: The sample at the step's noise level, float32.
            flow: The network's prediction at ``x``.

        Returns:
            The sample at the next noise level; after the last step, the clean latents.
        """
        step = next(self._steps)
        self._clean = [x - step.sigma * flow, *self._clean[:ORDER]]
        if not step.predict:
            return self._clean[0]
        if step.correct:
            assert self._sample is not None
            x = _combine(step.correct, [self._sample, *self._clean])
        self._sample = x
        return _combine(step.predict, [x, *self._clean])


def _combine(factors: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    total = factors[0] * tensors[0]
    for factor, tensor in zip(factors[1:], tensors[1:], strict=False):
        total = total + factor * tensor
    return total


def solve(predict: Callable[[Tensor, float], Tensor], noise: Tensor, steps: Sequence[Step]) -> Tensor:
    """Denoise one chunk with a fresh solver.

    Args:
        predict: Flow prediction of the model: (noisy latents, timestep) -> flow.
        noise: The initial noise [B, C, F, H, W], float32. No other noise is drawn.
        steps: See `unipc_steps`.

    Returns:
        The clean latents [B, C, F, H, W], float32.
    """
    solver, x = UniPC(steps), noise
    for step in steps:
        x = solver.step(x, predict(x, step.timestep))
    return x
