"""The log of a training run: progress bar, metrics, sample videos, drift plots.

In the run's folder::

    metrics.jsonl      one JSON object per step and line; plain text, which any tool can read and plot
    tensorboard/       the same numbers for TensorBoard (optional)
    samples/           videos, and plots of the drift of long rollouts (the plots are optional)
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
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from ...files.video import VideoWriter
from .drift_plot import load_figure, relative_to_first, write_drift_plot
from .metrics_file import Value, open_metrics, read_values

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_PACE_STEPS = 100  # newest steps whose mean is the pace, with the samples and checkpoints between them


@dataclass(frozen=True)
class _Step:
    """A finished step whose values are not read yet; ``done`` counts the steps of the run, this one included."""

    done: int
    stage: str
    step: int
    values: dict[str, Value]


class RunLog:
    """Progress, metrics and samples of one run; a context manager.

    Without tensorboard or matplotlib it prints one message and writes the rest.

    Args:
        folder: Folder of the run, created if it does not exist.
        total_steps: Steps of the whole run, all stages together.
        done: Steps that were finished before. The metrics of later steps are removed, so a run that was killed between
            logging and saving logs no step twice.
        log_every: Values are read every so many steps, together, since reading one waits for the device.

    Raises:
        ValueError: For impossible numbers, or a ``metrics.jsonl`` that is not of a training.
        OSError: If a file cannot be written.
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
        self._figure = load_figure()
        self._unread: list[_Step] = []
        self._value_text = ""  # the values that were read last, for the bar
        self._bar: tqdm[Any] | None = None
        self._stage = ""
        self._stage_steps_left = 0
        self._ends: deque[float] = deque(maxlen=_PACE_STEPS + 1)  # end times of the stage's newest steps
        self._stage_start = self._read_at = perf_counter()
        self._report_missing_libraries()

    def _report_missing_libraries(self) -> None:
        outputs = [("tensorboard", "TensorBoard files", self._board), ("matplotlib", "drift plots", self._figure)]
        missing = [(library, output) for library, output, writer in outputs if writer is None]
        if missing:
            self.message(
                f"not written, for want of {' and '.join(library for library, _ in missing)}: "
                f"{' and '.join(output for _, output in missing)}. To have them: pip install '.[train]'"
            )

    def progress(self, task: str) -> Callable[[int, int], None]:
        """Open a progress bar for a long preparation; the function that it returns takes (done, total)."""
        bar = tqdm(desc=task, file=sys.stderr, leave=False)

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if done >= total:
                bar.close()

        return show

    # Steps ----------------------------------------------------------------------------------------------------------

    def step(self, stage: str, step: int, of: int, values: Mapping[str, Value]) -> None:
        """Log a finished training step.

        Args:
            stage: Name of the stage.
            step: Number of the step in the stage, from 1.
            of: Steps of the stage.
            values: Numbers or 0-dim tensors on any device. They are read every ``log_every`` steps and at the end of a
                stage; do not change the tensors until then.

        Raises:
            ValueError: For a tensor of another shape.
        """
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim:
                raise ValueError(f"{name} has the shape {list(value.shape)}; expected a 0-dim tensor, such as a mean")
        if stage != self._stage:
            self._start_stage(stage, step, of)
        self.done += 1
        detached = {name: value.detach() if isinstance(value, Tensor) else value for name, value in values.items()}
        self._unread.append(_Step(self.done, stage, step, detached))
        if step % self.log_every == 0 or step == of:
            self._read()
        self._stage_steps_left = of - step
        self._ends.append(perf_counter())
        self._show(step)

    def _start_stage(self, stage: str, step: int, of: int) -> None:
        self._read()
        if self._bar is not None:
            self._bar.close()
        self._stage, self._value_text = stage, ""
        self._stage_start = self._ends[-1] if self._ends else self._stage_start
        self._ends.clear()
        layout = "{unit} {n_fmt}/{total_fmt} |{bar:20}| {desc}"
        self._bar = tqdm(total=of, initial=step - 1, unit=stage, bar_format=layout, mininterval=0.5, dynamic_ncols=True)

    def _show(self, step: int) -> None:
        assert self._bar is not None
        pace, (stage, run) = self.seconds_per_step, self.seconds_left
        rate = f"{1 / pace:.2f} steps/s" if 0 < pace <= 1 else f"{pace:.2f} s/step"
        left = f"left: stage {tqdm.format_interval(stage)}, run {tqdm.format_interval(run)}"
        self._bar.set_description_str(f"{rate}, {left}{self._value_text}", refresh=False)
        self._bar.update(step - self._bar.n)

    @property
    def seconds_per_step(self) -> float:
        """Seconds per step of the stage: the mean of its newest steps, without the first one if there are more."""
        if len(self._ends) > 1:
            return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return self._ends[0] - self._stage_start if self._ends else 0.0

    @property
    def seconds_left(self) -> tuple[float, float]:
        """Seconds left of the stage and of the whole run, both at the pace of this stage."""
        return self._stage_steps_left * self.seconds_per_step, (self.total_steps - self.done) * self.seconds_per_step

    def _read(self) -> None:
        """Read and log the values of the steps since the last call, with one device synchronization."""
        if not self._unread:
            return
        steps, self._unread = self._unread, []
        values = read_values([step.values for step in steps])
        now = perf_counter()
        seconds, self._read_at = (now - self._read_at) / len(steps), now
        lines = []
        for step, numbers in zip(steps, values, strict=True):
            record = {"done": step.done, "stage": step.stage, "step": step.step, "seconds": round(seconds, 6)}
            finite = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
            lines.append(json.dumps({**record, "values": finite}) + "\n")
            self._log({f"{step.stage}/{name}": number for name, number in numbers.items()}, step.done)
            self.on_values_read(step.done, step.stage, step.step, finite)
        self._metrics.write("".join(lines))
        self._metrics.flush()
        self._value_text = "".join(f", {name} {number:.4g}" for name, number in values[-1].items())

    def _log(self, scalars: Mapping[str, float], done: int) -> None:
        if self._board is not None:
            for tag, number in scalars.items():
                self._board.add_scalar(tag, number, done)

    def on_values_read(self, done: int, stage: str, step: int, values: Mapping[str, float | None]) -> None:
        """Hook for subclasses: the values of a step were read; NaN and Inf are None."""

    def flush(self) -> None:
        """Read and write all pending values.

        Call it before a checkpoint is saved, so that the metrics of a resumed run have every step up to it.
        """
        self._read()
        if self._board is not None:
            self._board.flush()

    # Samples --------------------------------------------------------------------------------------------------------

    def sample(self, stage: str, step: int, frames: Tensor, fps: float, prompts: Sequence[str]) -> Path:
        """Write videos side by side into one MP4.

        Args:
            stage: Name of the stage, and of the file.
            step: Number of the step, also in the file's name.
            frames: [B, T, H, W, 3] in 0..1.
            fps: Frame rate.
            prompts: Prompts of the videos, for the file's record.

        Returns:
            The path of the file.

        Raises:
            ValueError: For frames of another shape.
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
        """Plot curves of a rollout, each relative to its first value, or to its first value that is not zero.

        The last relative value goes to TensorBoard as ``drift/<name>``: 1 is no drift.

        Args:
            stage: Name of the stage, and of the file.
            step: Number of the step, also in the file's name.
            curves: Values per chunk [chunks] by name.
            trained_chunks: Chunks of the training length; a line marks its end.

        Returns:
            The path of the plot; None without matplotlib.
        """
        relative = {name: relative_to_first(curve) for name, curve in curves.items()}
        self._log({f"drift/{name}": curve[-1] for name, curve in relative.items()}, self.done)
        if self._figure is None:
            return None
        path = self.samples / f"{stage}-{step:06d}-drift.png"
        write_drift_plot(self._figure, path, f"{stage}, step {step}", relative, trained_chunks)
        return path

    # Messages, closing ----------------------------------------------------------------------------------------------

    def message(self, text: str) -> None:
        """Print a line above the progress bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Write all pending values, and close the files and the bar."""
        try:
            self._read()
        finally:
            self._metrics.close()
            if self._board is not None:
                self._board.close()
            if self._bar is not None:
                self._bar.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NullRunLog(RunLog):
    """A log that writes nothing: of several processes, only rank 0 logs."""

    def __init__(self) -> None:
        pass

    def progress(self, task: str) -> Callable[[int, int], None]:
        """Return a function that does nothing."""
        return lambda done, total: None

    def step(self, stage: str, step: int, of: int, values: Mapping[str, Value]) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def sample(self, stage: str, step: int, frames: Tensor, fps: float, prompts: Sequence[str]) -> Path:
        """Write nothing, and return an empty path."""
        return Path()

    def drift(self, stage: str, step: int, curves: Mapping[str, Tensor], trained_chunks: int) -> Path | None:
        """Plot nothing."""
        return None

    def message(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def in_grid(frames: Tensor) -> Tensor:
    """Arrange videos [B, T, H, W, 3] in a grid [T, rows * H, columns * W, 3]; empty places are black."""
    columns = math.ceil(math.sqrt(len(frames)))
    rows = math.ceil(len(frames) / columns)
    black = frames.new_zeros(rows * columns - len(frames), *frames.shape[1:])
    return rearrange(torch.cat([frames, black]), "(r c) t h w rgb -> t (r h) (c w) rgb", r=rows)


def _start_tensorboard(folder: Path, done: int) -> SummaryWriter | None:
    """Open a writer that discards the values of steps after ``done``; None without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done + 1, flush_secs=10)
