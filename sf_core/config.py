"""Rollout settings: chunk, window, sink, steps."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

from .schedule import TRAIN_STEPS, flow_schedule

SINK_POSITIONS = ("absolute", "clamped")
MAX_CHUNK_FRAMES = 1024  # latent frames; far above what any model was trained for, far below what no memory holds
MAX_WINDOW_FRAMES = 16384
MAX_SHIFT = 1000.0


@dataclass(frozen=True)
class RolloutConfig:
    """Settings of a rollout.

    Attributes:
        chunk_frames: Latent frames that are denoised together; 1 is frame-wise.
        first_chunk_frames: Length of the video's first block, given or sampled: 1 for models trained with an
            independent first frame. None: as every chunk.
        first_chunk_steps: Denoising steps of the first block, where it is sampled. None: as every chunk.
        window_frames: Latent frames that attention sees, current chunk and sink included. None: all frames.
        sink_frames: First frames of the video, or since a cut, that are never evicted.
        sink_position: Position of the sink for attention. ``absolute``: its own. ``clamped``: once the ring has rolled,
            right before the ring's oldest frame.
        denoising_steps: Nominal timesteps, falling; 1000 is pure noise.
        warp_steps: Whether ``shift`` moves the nominal timesteps.
        shift: Timestep shift of the flow schedule.
        context_noise: Timestep of the pass that writes a sampled chunk's keys and values. Its latents stay clean.

    Raises:
        ValueError: A setting cannot work; the message says which values would.
    """

    chunk_frames: int = 3
    first_chunk_frames: int | None = None
    first_chunk_steps: tuple[int, ...] | None = None
    window_frames: int | None = 21
    sink_frames: int = 0
    sink_position: str = "absolute"
    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    warp_steps: bool = True
    shift: float = 5.0
    context_noise: float = 0

    def __post_init__(self) -> None:
        for name in ("denoising_steps", "first_chunk_steps"):
            steps = getattr(self, name)
            if steps is not None:
                object.__setattr__(self, name, tuple(int(step) for step in steps))
                _check_steps(name, getattr(self, name))
        _check_frames("chunk_frames", self.chunk_frames, 1, MAX_CHUNK_FRAMES)
        _check_frames("sink_frames", self.sink_frames, 0, MAX_WINDOW_FRAMES)
        if self.first_chunk_frames is not None:
            _check_frames("first_chunk_frames", self.first_chunk_frames, 1, MAX_CHUNK_FRAMES)
        if self.window_frames is not None:
            _check_frames("window_frames", self.window_frames, 0, MAX_WINDOW_FRAMES)
            needed = max(self.chunk_frames + self.sink_frames, self.first_chunk_frames or 0)
            if self.window_frames < needed:
                raise ValueError(
                    f"window_frames is {self.window_frames}, but a chunk of {self.chunk_frames} (the first: "
                    f"{self.first_chunk_frames or self.chunk_frames}) and a sink of {self.sink_frames} "
                    f"need at least {needed}: raise the window, or lower the chunk or the sink"
                )
        if self.sink_position not in SINK_POSITIONS:
            raise ValueError(f"sink_position is {self.sink_position!r}; expected one of {', '.join(SINK_POSITIONS)}")
        if not isinstance(self.warp_steps, bool):
            raise ValueError(f"warp_steps is {self.warp_steps!r}; expected True or False")
        if not 0 <= self.context_noise <= TRAIN_STEPS:
            raise ValueError(f"context_noise is {self.context_noise}; expected a timestep from 0 to {TRAIN_STEPS}")
        if self.shift > MAX_SHIFT:
            raise ValueError(f"shift is {self.shift}; expected a number above 0, up to {MAX_SHIFT:g}")
        flow_schedule(self.shift)  # checks the rest

    @property
    def front_frames(self) -> int:
        """Latent frames of the largest chunk."""
        return max(self.chunk_frames, self.first_chunk_frames or 0)

    @property
    def ring_frames(self) -> int | None:
        """Latent frames of history besides the sink. None: unbounded."""
        return None if self.window_frames is None else self.window_frames - self.chunk_frames - self.sink_frames

    def fitting_frames(self, frames: int) -> int:
        """The largest count up to ``frames`` that cuts into a first block and whole chunks; 0 if there is none."""
        first = self.frames_of_block(0)
        return 0 if frames < first else frames - (frames - first) % self.chunk_frames

    def check_frames(self, frames: int, what: str = "latent frames") -> None:
        """Check that ``frames`` latent frames cut into whole blocks.

        Raises:
            ValueError: They do not; the message names ``what`` is counted and the nearest counts that do.
        """
        fits = self.fitting_frames(frames)
        if fits != frames:
            first, chunk = self.frames_of_block(0), self.chunk_frames
            nearest = f"{fits} or {fits + chunk}" if fits else str(first)
            raise ValueError(
                f"{frames} {what} do not cut into a first block of {first} and blocks of {chunk}; "
                f"the nearest counts that do: {nearest}"
            )

    def frames_of_block(self, start: int) -> int:
        """Length of the block that begins at latent frame ``start``."""
        return (self.first_chunk_frames or self.chunk_frames) if start == 0 else self.chunk_frames

    def timesteps(self, start: int) -> tuple[float, ...]:
        """Denoising timesteps, warped if so set, of the chunk that begins at latent frame ``start``."""
        first = start == 0 and self.first_chunk_steps is not None
        steps = (self.first_chunk_steps or ()) if first else self.denoising_steps
        return flow_schedule(self.shift).warp(steps) if self.warp_steps else tuple(float(step) for step in steps)

    @staticmethod
    def from_dict(settings: dict[str, object]) -> RolloutConfig:
        """Settings from JSON. Raises ValueError for unknown names."""
        known = {f.name for f in fields(RolloutConfig)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"unknown rollout settings: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return RolloutConfig(**settings)  # type: ignore[arg-type]


def _check_frames(name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value}; expected a whole number of latent frames from {least} on")
    if value > most:
        raise ValueError(f"{name} is {value}; expected at most {most} latent frames")


def _check_steps(name: str, steps: tuple[int, ...]) -> None:
    falling = all(a > b for a, b in pairwise(steps))
    if not steps or not falling or steps[0] > TRAIN_STEPS or steps[-1] < 0:
        raise ValueError(
            f"{name} is {steps}; expected falling timesteps from {TRAIN_STEPS} to 0, such as (1000, 750, 500, 250)"
        )
