"""Which rollout settings go together, and what else each of them needs.

One function a rule, called by `RolloutConfig`. Each raises ValueError with a sentence that says what was wrong, why it
cannot work and what would.
"""

from __future__ import annotations

from typing import Any

RolloutConfig = Any  # the class imports this module

SINK_POSITIONS = ("absolute", "clamped", "top_aligned")
SCHEDULES = ("chunk", "rolling")
SOLVERS = ("renoise", "unipc")
CONTEXTS = ("cache", "recompute")
KV_DTYPES = ("fp8", "int8", "int4")
MOST_SOLVER_STEPS = 1000
MOST_MEMORY_FRAMES = 1024
MOST_SHOT_OFFSET = 16384
# Settings that a training rollout follows
TRAINABLE = frozenset(
    (
        *("chunk_frames", "first_chunk_frames", "first_chunk_steps", "window_frames", "sink_frames", "sink_position"),
        *("denoising_steps", "warp_steps", "shift", "context_noise", "trained_frames"),
    )
)


def check_rules(config: RolloutConfig) -> None:
    """Check all rules. Raises ValueError for the first that cannot work."""
    for name, kinds in (
        ("sink_position", SINK_POSITIONS),
        ("schedule", SCHEDULES),
        ("solver", SOLVERS),
        ("context", CONTEXTS),
    ):
        if getattr(config, name) not in kinds:
            raise ValueError(f"{name} is {getattr(config, name)!r}; expected one of {', '.join(kinds)}")
    if config.kv_dtype not in (None, *KV_DTYPES):
        raise ValueError(f"kv_dtype is {config.kv_dtype!r}; expected None or one of {', '.join(KV_DTYPES)}")
    for name in ("warp_steps", "pin_shots", "context_in_chunk", "exact_times", "context_from_last_step"):
        if not isinstance(getattr(config, name), bool):
            raise ValueError(f"{name} is {getattr(config, name)!r}; expected True or False")
    for check in (
        _check_sink_position,
        _check_sink_average,
        _check_rolling,
        _check_solver,
        _check_shots,
        _check_context_in_chunk,
        _check_last_step,
        _check_recompute,
        _check_memory,
    ):
        check(config)


def check_trainable(config: RolloutConfig) -> None:
    """Raise ValueError for a rule of inference that a training rollout does not follow."""
    for name, f in type(config).__dataclass_fields__.items():
        value = getattr(config, name)
        if name in TRAINABLE or name in ("context_frames", "memory_interval") or value == f.default:
            continue
        raise ValueError(f"{name}={value!r} is a rule of inference, which training does not follow: leave it out")


def _whole(config: RolloutConfig, name: str, least: int, most: int) -> None:
    value = getattr(config, name)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}; expected a whole number from {least} to {most}")


def _refuse_together(config: RolloutConfig, rule: str, why: str, *others: str) -> None:
    """Raise ValueError if one of ``others`` is not at its default."""
    plain = type(config).__dataclass_fields__
    for name in others:
        value = getattr(config, name)
        if value != plain[name].default:
            raise ValueError(f"{rule} does not go together with {name}={value!r}: {why}")


def _check_sink_position(config: RolloutConfig) -> None:
    if config.sink_position != "top_aligned":
        if config.trained_frames is not None:
            raise ValueError(
                f"trained_frames is {config.trained_frames}, but sink_position is {config.sink_position!r}: only "
                "'top_aligned' reads it. Take sink_position='top_aligned', or leave trained_frames out"
            )
        return
    if config.trained_frames is None or config.window_frames is None:
        missing = "trained_frames" if config.trained_frames is None else "window_frames"
        raise ValueError(
            f"sink_position='top_aligned' needs {missing}: no position passes trained_frames - 1, so the window has to "
            "fit into that many latent frames (SGF: a window of 12 of 21)"
        )
    _whole(config, "trained_frames", 1, MOST_SHOT_OFFSET)
    if config.window_frames > config.trained_frames:
        raise ValueError(
            f"window_frames is {config.window_frames} and trained_frames {config.trained_frames}: the window would "
            "hold positions that the model was not trained on. Lower the window, or raise trained_frames"
        )


def _check_sink_average(config: RolloutConfig) -> None:
    value = config.sink_average
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"sink_average is {value!r}; expected a number between 0 and 1, such as 0.999, or None")
    if config.sink_frames != config.chunk_frames:
        raise ValueError(
            f"sink_average needs sink_frames equal to chunk_frames, here {config.sink_frames} and "
            f"{config.chunk_frames}: each chunk that leaves the window is averaged into the sink, frame by frame"
        )
    if config.window_frames is None or config.window_frames % config.chunk_frames:
        raise ValueError(
            f"sink_average needs a window of whole chunks, window_frames is {config.window_frames} and chunk_frames "
            f"{config.chunk_frames}: what leaves the window has to be one chunk"
        )
    why = "what leaves the window has to be one chunk"
    if config.first_chunk_frames not in (None, config.chunk_frames):
        _refuse_together(config, "sink_average", why, "first_chunk_frames")


def _check_rolling(config: RolloutConfig) -> None:
    if config.schedule != "rolling":
        return
    rule = "schedule='rolling'"
    why = "it denoises as many chunks together as there are steps, and places the sink itself"
    others = ("sink_average", "trained_frames", "first_chunk_steps", "solver", "solver_steps", "shot_offset")
    more = ("pin_shots", "context_in_chunk", "context_from_last_step", "context", "memory_frames")
    _refuse_together(config, rule, why, *others, *more)
    steps = len(config.denoising_steps)
    if steps < 2:
        raise ValueError(f"{rule} needs two denoising steps or more, one chunk in flight for each: here {steps}")
    needed = steps * config.chunk_frames + config.sink_frames
    if config.window_frames is None or config.window_frames < needed:
        raise ValueError(
            f"{rule} with {steps} steps has {steps} chunks of {config.chunk_frames} in flight, and a sink of "
            f"{config.sink_frames}: window_frames is {config.window_frames}, it needs at least {needed}"
        )


def _check_solver(config: RolloutConfig) -> None:
    if config.solver == "renoise":
        if config.solver_steps is not None:
            raise ValueError(
                f"solver_steps is {config.solver_steps}, but solver is 'renoise', which runs denoising_steps: take "
                "solver='unipc', or leave solver_steps out"
            )
        return
    if config.solver_steps is None:
        raise ValueError("solver='unipc' needs solver_steps, the number of its steps (LongLive 2: 4)")
    _whole(config, "solver_steps", 1, MOST_SOLVER_STEPS)
    why = "the solver makes its own timesteps"
    _refuse_together(config, "solver='unipc'", why, "first_chunk_steps", "exact_times", "context_from_last_step")


def _check_shots(config: RolloutConfig) -> None:
    _whole(config, "shot_offset", 0, MOST_SHOT_OFFSET)
    if config.pin_shots:
        room = None if config.window_frames is None else config.window_frames - config.sink_frames
        if room is None or room < 2 * config.front_frames:
            raise ValueError(
                f"pin_shots keeps the first chunk of a shot in the window: window_frames is {config.window_frames}, "
                f"it needs the sink of {config.sink_frames} and two chunks of {config.front_frames}, or more"
            )
        why = "a pinned chunk does not leave the window in its turn"
        _refuse_together(config, "pin_shots", why, "sink_average", "context_from_last_step")
    if (config.shot_offset or config.pin_shots) and config.sink_position != "absolute":
        raise ValueError(
            f"shots do not go together with sink_position={config.sink_position!r}: the positions of a shot jump, and "
            "the sink's would follow the window across the jump. Take sink_position='absolute'"
        )


def _check_context_in_chunk(config: RolloutConfig) -> None:
    if config.context_in_chunk and config.context_noise:
        raise ValueError(
            f"context_in_chunk holds a given frame at timestep 0, but context_noise is {config.context_noise}: the "
            "pass that writes the first chunk would not be at 0. Take context_noise=0"
        )
    if config.context_in_chunk and config.frames_of_block(0) < 2:
        raise ValueError("context_in_chunk holds a given frame inside the first chunk, which needs two frames or more")


def _check_last_step(config: RolloutConfig) -> None:
    if config.context_from_last_step:
        why = "no pass writes a chunk's keys and values: those of its last step stay"
        _refuse_together(config, "context_from_last_step", why, "context_noise")


def _check_recompute(config: RolloutConfig) -> None:
    _whole(config, "context_frames", 1, MOST_SHOT_OFFSET)
    if config.context == "cache":
        return
    rule, chunk = "context='recompute'", config.chunk_frames
    why = "the cache is written anew before each chunk, from the newest frames alone"
    others = ("sink_average", "trained_frames", "shot_offset", "pin_shots", "context_in_chunk")
    _refuse_together(config, rule, why, *others, "context_from_last_step", "memory_frames", "sink_frames")
    if config.context_frames % chunk or config.first_chunk_frames not in (None, chunk):
        raise ValueError(
            f"{rule} passes whole chunks again: context_frames is {config.context_frames} and first_chunk_frames "
            f"{config.first_chunk_frames}, but a chunk has {chunk}"
        )
    if config.window_frames != config.context_frames + chunk:
        raise ValueError(
            f"{rule} sees context_frames and the chunk, {config.context_frames} + {chunk}: window_frames is "
            f"{config.window_frames}, expected {config.context_frames + chunk}"
        )


def _check_memory(config: RolloutConfig) -> None:
    _whole(config, "memory_frames", 0, MOST_MEMORY_FRAMES)
    _whole(config, "memory_interval", 1, MOST_SHOT_OFFSET)
    if not config.memory_frames:
        return
    if config.window_frames is None:
        raise ValueError("memory_frames keeps what the window has lost: window_frames is None, which loses nothing")
    why = "the bank has a place of its own between sink and window"
    _refuse_together(config, "memory_frames", why, "sink_average", "trained_frames", "pin_shots", "shot_offset")
