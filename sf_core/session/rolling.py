"""The rolling schedule: as many chunks in flight as there are steps, each at its own noise level.

One joint pass takes every chunk in flight one step on; they see each other, without a mask. The oldest one is then
clean, and is the next chunk of the video. So in steady state a chunk costs one joint pass and the pass that writes its
keys and values. Source: Rolling Forcing (and Causal Forcing's ``longvideo``).

Where nothing is in flight (at the beginning, after given frames, a cut or `Session.finish`), chunks are added one by
one, each a step behind the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..schedule import FlowSchedule
from .archive import StoredLatents

JointFlow = Callable[
    [Sequence[Tensor], Sequence[float]], Sequence[Tensor]
]  # (chunks, timestep of each) -> flow of each
FlightNoise = Callable[[int, int], Tensor]  # (chunk, counted from the oldest in flight; step) -> noise


@dataclass(frozen=True, eq=False)
class InFlight:
    """The chunks in flight, oldest first.

    Attributes:
        steps: The next step of each.
        latents: Their noisy latents [B, C, F, H, W], one chunk behind the other, each at the level of its next step.
    """

    steps: tuple[int, ...]
    latents: StoredLatents


def roll(
    flow: JointFlow,
    noise: FlightNoise,
    chunks: list[Tensor],
    steps: list[int],
    timesteps: Sequence[float],
    schedule: FlowSchedule,
    most: int | None,
) -> tuple[Tensor, list[Tensor], list[int]]:
    """Denoise until the oldest chunk in flight is clean.

    Args:
        flow: One joint pass.
        noise: The first noise of a chunk at step 0, then what is added before a step.
        chunks: The noisy chunks in flight.
        steps: The next step of each.
        timesteps: Timestep of each step, falling.
        schedule: Conversion between noisy latents, flow and clean latents.
        most: Before each pass, a chunk of pure noise is added behind the others, up to so many in flight. None: always.

    Returns:
        The clean chunk; the chunks that are left, and the next step of each.
    """
    while True:
        if most is None or len(chunks) < most:
            chunks = [*chunks, schedule.first_noise(noise(len(chunks), 0), timesteps[0])]
            steps = [*steps, 0]
        levels = [timesteps[step] for step in steps]
        flows = flow(chunks, levels)
        clean = [schedule.to_x0(x, v, level) for x, v, level in zip(chunks, flows, levels, strict=True)]
        done = steps[0] + 1 == len(timesteps)
        steps = [step + 1 for step in steps[done:]]
        chunks = [
            schedule.add_noise(x0, noise(index, step), timesteps[step])
            for index, (x0, step) in enumerate(zip(clean[done:], steps, strict=True), start=int(done))
        ]
        if done:
            return clean[0], chunks, steps


def passes_until_clean(steps: Sequence[int], count: int, cut: bool = False) -> int:
    """The number of joint passes of one `roll` over ``count`` timesteps, with chunks in flight at ``steps``."""
    return count if cut or not steps else count - steps[0]


def steps_after(steps: Sequence[int], count: int, most: int | None = None) -> tuple[int, ...]:
    """The next steps of the chunks in flight after one came out; ``most`` as for `roll`."""
    going = list(steps)
    for _ in range(passes_until_clean(steps, count)):
        if most is None or len(going) < most:
            going.append(0)
        going = [step + 1 for step in going]
    return tuple(going[1:])
