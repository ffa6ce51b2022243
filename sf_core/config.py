"""Rollout settings: chunk, window, sink, steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise

import torch

from .rollout_rules import SINK_POSITIONS as SINK_POSITIONS
from .rollout_rules import check_rules
from .schedule import EXACT, TRAIN_STEPS, FlowSchedule, flow_schedule
from .unipc import unipc_steps

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
        first_chunk_steps: Denoising steps of the first chunk that is sampled, also behind given frames. None: as every
            chunk.
        window_frames: Latent frames that attention sees, current chunk and sink included. None: all frames.
        sink_frames: First frames of the video, or since a cut, that are never evicted.
        sink_position: Position of the sink for attention. ``absolute``: its own. ``clamped``: once the ring has rolled,
            right before the ring's oldest frame. ``top_aligned``: its own, until the newest frame reaches
            ``trained_frames - 1``; from then on the window's positions stand still, and so does its distance (SGF).
        denoising_steps: Nominal timesteps, falling; 1000 is pure noise.
        warp_steps: Whether ``shift`` moves the nominal timesteps.
        shift: Timestep shift of the flow schedule.
        context_noise: Timestep of the pass that writes a sampled chunk's keys and values. Its latents stay clean.
        trained_frames: Latent frames of the videos that the model was trained on; read by ``top_aligned``.
        sink_average: Weight of the sink's keys and values in their average with those of each chunk that leaves the
            window (Reward Forcing: 0.999). None: the sink stays as it is.
        schedule: ``chunk``: one chunk after the other. ``rolling``: as many chunks in flight as there are steps, each
            at its own noise level (Rolling Forcing). The sink is then right before the oldest frame in sight.
        solver: ``renoise``: each step predicts the clean chunk and adds new noise. ``unipc``: a UniPC solver for each
            chunk, without new noise; ``denoising_steps`` are then not read (LongLive 2).
        solver_steps: Steps of the solver. None: there is none.
        shot_offset: Frames that positions jump by at a new shot, see `Session.with_shot` (LongLive 2).
        pin_shots: The first chunk of the newest shot stays in the window.
        context_in_chunk: One given frame sits inside the first chunk, at timestep 0, in place of a block of its own.
        exact_times: ``denoising_steps`` are timesteps as they are, also fractions, and a noise level is
            ``timestep / 1000``; the first noise is scaled by its level, too. ``warp_steps`` and ``shift`` are not read
            (Causal-rCM).
        context_from_last_step: No pass writes a chunk's keys and values: those of its last step stay. The video's first
            block is passed as always (Causal-rCM, noisy context).
        context: ``cache``: keys and values are kept. ``recompute``: before each chunk, the newest ``context_frames``
            are passed again (Krea). See ``reencode`` of `Session.start`.
        context_frames: Latent frames that ``recompute`` passes.
        memory_frames: Latent frames of a bank that keeps what the prompt looks at most (MemFlow). 0: none.
        memory_interval: Chunks that share a frame of the bank.
        kv_dtype: Number format of the ring's keys and values in the cache: ``fp8``, ``int8`` or ``int4``. The chunk at
            work and the sink stay as the model computes them. None: so does the ring.
        kv_offload: The cache is in host memory, and the device has two layers of it at a time. It changes no result.

    Raises:
        ValueError: A setting cannot work; the message says which values would.
    """

    chunk_frames: int = 3
    first_chunk_frames: int | None = None
    first_chunk_steps: tuple[float, ...] | None = None
    window_frames: int | None = 21
    sink_frames: int = 0
    sink_position: str = "absolute"
    denoising_steps: tuple[float, ...] = (1000, 750, 500, 250)
    warp_steps: bool = True
    shift: float = 5.0
    context_noise: float = 0
    trained_frames: int | None = None
    sink_average: float | None = None
    schedule: str = "chunk"
    solver: str = "renoise"
    solver_steps: int | None = None
    shot_offset: int = 0
    pin_shots: bool = False
    context_in_chunk: bool = False
    exact_times: bool = False
    context_from_last_step: bool = False
    context: str = "cache"
    context_frames: int = 3
    memory_frames: int = 0
    memory_interval: int = 3
    kv_dtype: str | None = None
    kv_offload: bool = False

    def __post_init__(self) -> None:
        for name in ("denoising_steps", "first_chunk_steps"):
            steps = getattr(self, name)
            if steps is not None:
                number = float if self.exact_times else int
                object.__setattr__(self, name, tuple(number(step) for step in steps))
                _check_steps(name, getattr(self, name))
        _check_frames("chunk_frames", self.chunk_frames, 1, MAX_CHUNK_FRAMES)
        _check_frames("sink_frames", self.sink_frames, 0, MAX_WINDOW_FRAMES)
        if self.first_chunk_frames is not None:
            _check_frames("first_chunk_frames", self.first_chunk_frames, 1, MAX_CHUNK_FRAMES)
        if self.window_frames is not None:
            _check_frames("window_frames", self.window_frames, 0, MAX_WINDOW_FRAMES)
            needed = self._least_window
            if self.window_frames < needed:
                raise ValueError(
                    f"window_frames is {self.window_frames}, but a chunk of {self.chunk_frames} (the first: "
                    f"{self.first_chunk_frames or self.chunk_frames}) and a sink of {self.sink_frames} "
                    f"need at least {needed}: raise the window, or lower the chunk or the sink"
                )
        if not 0 <= self.context_noise <= TRAIN_STEPS:
            raise ValueError(f"context_noise is {self.context_noise}; expected a timestep from 0 to {TRAIN_STEPS}")
        if self.shift > MAX_SHIFT:
            raise ValueError(f"shift is {self.shift}; expected a number above 0, up to {MAX_SHIFT:g}")
        flow_schedule(self.shift)  # checks the shift
        check_rules(self)

    @property
    def _least_window(self) -> int:
        """The smallest window that holds a chunk and the sink, and the first chunk."""
        return max(self.chunk_frames + self.sink_frames, self.first_chunk_frames or 0)

    @property
    def noise_levels(self) -> FlowSchedule:
        """The conversion between noisy latents, flow and clean latents."""
        return EXACT if self.exact_times else flow_schedule(self.shift)

    @property
    def front_frames(self) -> int:
        """Latent frames of the largest chunk."""
        return max(self.chunk_frames, self.first_chunk_frames or 0)

    @property
    def ring_frames(self) -> int | None:
        """Latent frames of history besides the sink. None: unbounded."""
        if self.window_frames is None:
            return None
        # a rolling schedule's window passes over the sink
        return self.window_frames - self.chunk_frames - (0 if self.schedule == "rolling" else self.sink_frames)

    @property
    def pass_frames(self) -> int:
        """Latent frames of the largest pass while a chunk is sampled."""
        flying = len(self.denoising_steps) if self.schedule == "rolling" else 1
        return max(self.front_frames, flying * self.chunk_frames)

    @property
    def wide_frames(self) -> int:
        """Latent frames of the largest pass, the first chunks of a video included; 0: all fit the cache's front."""
        if self.schedule == "rolling":
            return self.front_frames + (len(self.denoising_steps) - 1) * self.chunk_frames
        return self.front_frames if self.memory_frames or self.kv_offload else 0

    def windows_below(self, most: int, least: int = 0) -> range:
        """The values from ``least`` to below ``most`` that ``window_frames`` could take with the other settings."""
        if self.context == "recompute":  # its window follows from the context
            return range(0)
        needed = self._least_window
        if self.schedule == "rolling":
            needed = self.pass_frames + self.sink_frames
        if self.pin_shots:
            needed = max(needed, self.sink_frames + 2 * self.front_frames)
        step = self.chunk_frames if self.sink_average is not None else 1
        return range(-(-max(least, needed) // step) * step, most, step)

    @property
    def picture_frames(self) -> int | None:
        """Latent frames that one picture fills at the beginning of a video, shown still. None: one, a block of its own.

        SGF, Reward Forcing and Krea know whole chunks only.
        """
        if self.context == "recompute":
            return self.context_frames
        still = self.sink_average is not None or self.sink_position == "top_aligned"
        return self.frames_of_block(0) if still else None

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

    def frames_of_flights(self, start: int, count: int) -> list[int]:
        """Lengths of the ``count`` blocks from latent frame ``start`` on."""
        return [self.frames_of_block(start), *[self.chunk_frames] * (count - 1)] if count else []

    def timesteps(self, chunk: int, scale: float = 1.0) -> tuple[float, ...]:
        """Denoising timesteps, warped if so set, of a chunk; ``chunk`` counts those that are sampled, from 0.

        ``scale`` multiplies the nominal timesteps, before they are warped; steps that become equal are one.
        """
        if self.solver == "unipc":
            return tuple(step.timestep for step in unipc_steps(self.solver_steps or 0, self.shift))
        first = chunk == 0 and self.first_chunk_steps is not None
        steps = (self.first_chunk_steps or ()) if first else self.denoising_steps
        if scale != 1.0:
            steps = _scaled(steps, scale, whole=not self.exact_times)
        if self.exact_times or not self.warp_steps:
            return tuple(float(step) for step in steps)
        return flow_schedule(self.shift).warp([int(step) for step in steps])

    def as_dict(self) -> dict[str, object]:
        """Settings for JSON; rules that came later than the first versions only where they are not at their default.

        So a session without them has the same file and the same digest as ever.
        """
        settings = asdict(self)
        for f in fields(self):
            if f.name in RULES and settings[f.name] == f.default:
                del settings[f.name]
        return settings

    @property
    def has_rules(self) -> bool:
        """Whether any rule is set that the first versions did not have."""
        return self.sink_position == "top_aligned" or not RULES.isdisjoint(self.as_dict())

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


# settings that the first versions did not have
_NAMES = [f.name for f in fields(RolloutConfig)]
RULES = frozenset(_NAMES[_NAMES.index("trained_frames") :])


def _scaled(steps: tuple[float, ...], scale: float, whole: bool) -> tuple[float, ...]:
    """Timesteps times ``scale``; with ``whole``, cut to whole ones. A list that was evenly spaced stays so (Krea)."""
    even = torch.linspace(steps[0], steps[-1], len(steps)).long().tolist()
    if whole and even == list(steps):
        scaled = torch.linspace(steps[0] * scale, steps[-1] * scale, len(steps)).tolist()
    else:
        scaled = [step * scale for step in steps]
    cut = dict.fromkeys(int(step) if whole else step for step in scaled)
    return tuple(step for step in cut if step > 0 or steps[-1] == 0)


def _check_steps(name: str, steps: tuple[float, ...]) -> None:
    falling = all(a > b for a, b in pairwise(steps))
    if not steps or not falling or steps[0] > TRAIN_STEPS or steps[-1] < 0:
        raise ValueError(
            f"{name} is {steps}; expected falling timesteps from {TRAIN_STEPS} to 0, such as (1000, 750, 500, 250)"
        )
