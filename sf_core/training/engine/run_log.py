"""What a training run tells its user: progress, metrics, sample videos, drift plots.

In the run's folder::

    metrics.jsonl      a line a step, as JSON; plain text, so that it can be read, cut and plotted with anything
    tensorboard/       the same numbers for TensorBoard (optional)
    samples/           videos, and plots of how long rollouts drift (the plots are optional)
"""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from ...files.video import VideoWriter

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

Value = Tensor | float

_PACE_STEPS = 100  # the newest steps whose mean is the pace: samples and checkpoints between them count in


@dataclass(frozen=True)
class _Step:
    """A finished step whose values have not been read yet. ``done``: steps of the whole run, this one included."""

    done: int
    stage: str
    step: int
    values: dict[str, Value]


class Report:
    """Everything that a run shows and writes about itself; a context manager.

    folder: of the run; made if need be. total_steps: of the whole run, all stages together.
    done: how many of them were finished before: what an earlier run wrote about later steps is taken back, so that
    a run that was killed after it logged and before it saved logs no step twice.
    log_every: values are read once in so many steps, all together, since reading one waits for the device.
    Without tensorboard or matplotlib it says so once and writes the rest. Raises OSError if it cannot write.
    """

    def __init__(self, folder: Path, total_steps: int, done: int = 0, log_every: int = 10) -> None:
        if log_every < 1:
            raise ValueError(f"log_every is {log_every}; expected a number of steps from 1 on")
        if not 0 <= done <= total_steps:
            raise ValueError(f"{done} steps are done of {total_steps}; give total_steps of the whole run, all stages")
        self.folder = folder
        self.total_steps = total_steps
        self.done = done
        self.log_every = log_every
        self.samples = folder / "samples"
        self.samples.mkdir(parents=True, exist_ok=True)
        self._metrics = open_metrics(folder / "metrics.jsonl", done)
        self._board = _start_tensorboard(folder / "tensorboard", done)
        self._figure = _load_figure()
        self._unread: list[_Step] = []
        self._shown = ""  # the values that were read last
        self._bar: tqdm[Any] | None = None
        self._stage = ""
        self._left = 0  # steps of the stage
        self._ends: deque[float] = deque(maxlen=_PACE_STEPS + 1)  # times at which steps of the stage were finished
        self._begun = self._read_at = perf_counter()
        self._say_what_is_missing()

    def _say_what_is_missing(self) -> None:
        parts = [("tensorboard", "TensorBoard files", self._board), ("matplotlib", "drift plots", self._figure)]
        missing = [(library, what) for library, what, found in parts if found is None]
        if missing:
            self.message(
                f"not written, for want of {' and '.join(library for library, _ in missing)}: "
                f"{' and '.join(what for _, what in missing)}. To have them: pip install '.[train]'"
            )

    def progress(self, what: str) -> Callable[[int, int], None]:
        """A bar of its own for what takes long before a stage starts; to be called with (done, of)."""
        bar = tqdm(desc=what, file=sys.stderr, leave=False)

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)
            if done >= of:
                bar.close()

        return show

    # Steps ----------------------------------------------------------------------------------------------------------

    def step(self, stage: str, step: int, of: int, values: Mapping[str, Value]) -> None:
        """A training step is finished: number ``step`` (from 1) of the ``of`` steps of ``stage``.

        values: numbers or 0-dim tensors, on any device. They are read every ``log_every`` steps and at the end of a
        stage; until then tensors are only kept, so they must not be written to afterwards.
        Raises ValueError for a tensor of another shape.
        """
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim:
                raise ValueError(f"{name} has the shape {list(value.shape)}; expected a 0-dim tensor, such as a mean")
        if stage != self._stage:
            self._start_stage(stage, step, of)
        self.done += 1
        kept = {name: value.detach() if isinstance(value, Tensor) else value for name, value in values.items()}
        self._unread.append(_Step(self.done, stage, step, kept))
        if step % self.log_every == 0 or step == of:
            self._read()
        self._left = of - step
        self._ends.append(perf_counter())
        self._show(step)

    def _start_stage(self, stage: str, step: int, of: int) -> None:
        self._read()
        if self._bar is not None:
            self._bar.close()
        self._stage, self._shown = stage, ""
        self._begun = self._ends[-1] if self._ends else self._begun
        self._ends.clear()
        layout = "{unit} {n_fmt}/{total_fmt} |{bar:20}| {desc}"
        self._bar = tqdm(total=of, initial=step - 1, unit=stage, bar_format=layout, mininterval=0.5, dynamic_ncols=True)

    def _show(self, step: int) -> None:
        assert self._bar is not None
        pace, (stage, run) = self.seconds_per_step, self.seconds_left
        rate = f"{1 / pace:.2f} steps/s" if 0 < pace <= 1 else f"{pace:.2f} s/step"
        left = f"left: stage {tqdm.format_interval(stage)}, run {tqdm.format_interval(run)}"
        self._bar.set_description_str(f"{rate}, {left}{self._shown}", refresh=False)
        self._bar.update(step - self._bar.n)

    @property
    def seconds_per_step(self) -> float:
        """The pace of the stage: the mean of its newest steps, without its first if there are more."""
        if len(self._ends) > 1:
            return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return self._ends[0] - self._begun if self._ends else 0.0

    @property
    def seconds_left(self) -> tuple[float, float]:
        """Of the stage and of the whole run. Nothing is known of stages to come but their steps: they are counted at
        the pace of this one, so the second is a guess where stages differ."""
        return self._left * self.seconds_per_step, (self.total_steps - self.done) * self.seconds_per_step

    def _read(self) -> None:
        """Read the values of the steps since the last time, with one wait for the device, and log them."""
        if not self._unread:
            return
        steps, self._unread = self._unread, []
        values = read_values([step.values for step in steps])
        now = perf_counter()
        seconds, self._read_at = (now - self._read_at) / len(steps), now
        lines = []
        for step, numbers in zip(steps, values, strict=True):
            facts = {"done": step.done, "stage": step.stage, "step": step.step, "seconds": round(seconds, 6)}
            finite = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
            lines.append(json.dumps({**facts, "values": finite}) + "\n")
            self._log({f"{step.stage}/{name}": number for name, number in numbers.items()}, step.done)
            self.was_read(step.done, step.stage, step.step, finite)
        self._metrics.write("".join(lines))
        self._metrics.flush()
        self._shown = "".join(f", {name} {number:.4g}" for name, number in values[-1].items())

    def _log(self, scalars: Mapping[str, float], done: int) -> None:
        if self._board is not None:
            for tag, number in scalars.items():
                self._board.add_scalar(tag, number, done)

    def was_read(self, done: int, stage: str, step: int, values: Mapping[str, float | None]) -> None:
        """For who tells of it elsewhere too: the values of a step, None where one is NaN or Inf. See `_Step`."""

    def flush(self) -> None:
        """Read and write what was held back. To be called before a checkpoint is saved: a run that is resumed from
        it then finds every step up to it in the metrics."""
        self._read()
        if self._board is not None:
            self._board.flush()

    # Samples --------------------------------------------------------------------------------------------------------

    def sample(self, stage: str, step: int, frames: Tensor, fps: float, prompts: Sequence[str]) -> Path:
        """Write the videos ``frames`` [B, T, H, W, 3] in 0..1 side by side into one MP4; its record names the prompts.

        Raises ValueError for another shape.
        """
        if frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(
                f"frames have the shape {list(frames.shape)}; expected [videos, frames, height, width, 3], none empty"
            )
        path = self.samples / f"{stage}-{step:06d}.mp4"
        with VideoWriter(path, fps, record={"prompts": list(prompts), "stage": stage, "step": step}) as writer:
            writer.write(in_grid(frames))
        return path

    def drift(self, stage: str, step: int, curves: Mapping[str, Tensor], trained_chunks: int) -> Path | None:
        """Plot ``curves`` [chunks] of a rollout, each relative to its first value, or to the first that is not zero.

        trained_chunks: how many chunks the model is trained on; a line marks the end of them.
        The last value so taken goes to TensorBoard, as ``drift/<name>``: 1 is no drift.
        Returns None if matplotlib is missing.
        """
        relative = {name: relative_to_first(curve) for name, curve in curves.items()}
        self._log({f"drift/{name}": curve[-1] for name, curve in relative.items()}, self.done)
        if self._figure is None:
            return None
        figure = self._figure(figsize=(10, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for name, curve in relative.items():
            axes.plot(range(1, len(curve) + 1), curve, marker=".", label=f"{name} (x {curve[-1]:.2f})")
        axes.axvline(trained_chunks + 0.5, color="black", linestyle="--", label="end of the training length")
        axes.set(xlabel="chunk", ylabel="relative to the first", title=f"{stage}, step {step}")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper")
        path = self.samples / f"{stage}-{step:06d}-drift.png"
        part = path.with_name(path.name + ".part")
        figure.savefig(part, format="png", dpi=100)
        part.replace(path)
        return path

    # ----------------------------------------------------------------------------------------------------------------

    def message(self, text: str) -> None:
        """Print a line above the progress bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Write what was held back, and let go of the files and the terminal."""
        try:
            self._read()
        finally:
            self._metrics.close()
            if self._board is not None:
                self._board.close()
            if self._bar is not None:
                self._bar.close()

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Silent(Report):
    """Says and writes nothing: of the processes that train together, one alone reports."""

    def __init__(self) -> None:
        pass

    def progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, of: None

    def step(self, stage: str, step: int, of: int, values: Mapping[str, Value]) -> None:
        pass

    def flush(self) -> None:
        pass

    def sample(self, stage: str, step: int, frames: Tensor, fps: float, prompts: Sequence[str]) -> Path:
        return Path()

    def drift(self, stage: str, step: int, curves: Mapping[str, Tensor], trained_chunks: int) -> Path | None:
        return None

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def read_values(steps: Sequence[Mapping[str, Value]]) -> list[dict[str, float]]:
    """The numbers of several steps, with one transfer from the device for all of them."""
    tensors = [value for values in steps for value in values.values() if isinstance(value, Tensor)]
    together = torch.stack([t.to(tensors[0].device, torch.float32) for t in tensors]).tolist() if tensors else []
    read = (float(f"{number:.7g}") for number in together)  # what float32 holds
    return [{n: next(read) if isinstance(v, Tensor) else float(v) for n, v in values.items()} for values in steps]


def open_metrics(path: Path, done: int) -> TextIO:
    """Open ``metrics.jsonl`` to append to it, cut behind the line of step ``done`` of the run.

    What follows was written by a run that got further than what it saved, or is half a line of one that was killed.
    Raises ValueError for a file of something else.
    """
    kept = 0
    if path.exists():
        with path.open("r+b") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") or _done_of(line, f"{path}, line {number}") > done:
                    break
                kept += len(line)
            file.truncate(kept)
    return path.open("a", encoding="utf-8")


def _done_of(line: bytes, where: str) -> int:
    try:
        return int(json.loads(line)["done"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where} is not a step's metrics; move the file away, or train in another folder") from error


def relative_to_first(curve: Tensor) -> list[float]:
    """``curve`` [n] divided by its first value, or where that is zero (a distance from it) by the first that is not."""
    values: list[float] = curve.tolist()
    first = next((value for value in values if value != 0), 1.0)
    return [value / first for value in values]


def in_grid(frames: Tensor) -> Tensor:
    """Videos [B, T, H, W, 3] side by side in rows, as one video [T, rows * H, columns * W, 3]; the rest is black."""
    columns = math.ceil(math.sqrt(len(frames)))
    rows = math.ceil(len(frames) / columns)
    black = frames.new_zeros(rows * columns - len(frames), *frames.shape[1:])
    return rearrange(torch.cat([frames, black]), "(r c) t h w rgb -> t (r h) (c w) rgb", r=rows)


def _start_tensorboard(folder: Path, done: int) -> SummaryWriter | None:
    """A writer that takes back what was written about later steps than ``done``; None without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done + 1, flush_secs=10)


def _load_figure() -> type[Figure] | None:
    """Matplotlib's picture, which needs neither its global state nor a screen; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure
