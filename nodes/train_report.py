"""Progress of a training on its node: losses, samples, text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

from torch import Tensor
from tqdm import tqdm

from ..sf_core.cancellation import Cancellation
from ..sf_core.message import NOTHING, Message, listed
from ..sf_core.training.engine.metrics_file import Value
from ..sf_core.training.engine.process_group import Group
from ..sf_core.training.engine.run_log import RunLog, in_grid
from ..sf_core.training.recipe import Recipe
from ..sf_core.training.stage_settings import SelfForcingStage
from .adapters import host
from .live.view import LiveView

SECONDS_BETWEEN = 0.5  # between two messages of progress, at least
CURVE_POINTS = 120  # of a loss, over the whole training
LOSSES = {"ode_loss": "generator", "dmd_loss": "generator", "critic_loss": "critic"}  # network by plotted loss


class LossCurves:
    """Losses of a training of ``total`` steps: means over equal parts of the training."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._sums: dict[str, dict[int, tuple[float, int]]] = {}
        self.generator: list[float] = []  # every loss of the generator

    def add(self, done: int, values: Mapping[str, float | None]) -> None:
        """Add the losses of a step; ``done`` counts the steps of the whole training, including this one."""
        place = (done - 1) * CURVE_POINTS // self.total
        for name, value in values.items():
            if name not in LOSSES or value is None:
                continue
            network = LOSSES[name]
            if network == "generator":
                self.generator.append(value)
            total, count = self._sums.setdefault(network, {}).get(place, (0.0, 0))
            self._sums[network][place] = total + value, count + 1

    def points(self) -> dict[str, list[tuple[float, float]]]:
        """Return [(progress of the training, 0 to 1; mean loss), ...] by network."""
        return {
            network: [((place + 0.5) / CURVE_POINTS, total / count) for place, (total, count) in sorted(sums.items())]
            for network, sums in self._sums.items()
        }


class NodeReport(RunLog):
    """A run log that also reports progress, losses and samples on the node."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        done: int,
        view: LiveView,
        bar: host.NodeProgress,
        cancellation: Cancellation,
    ) -> None:
        super().__init__(folder, recipe.steps, done, log_every=1)
        self._recipe, self._view, self._progress, self._cancellation = recipe, view, bar, cancellation
        self.curves = LossCurves(recipe.steps)
        self._samples, self._sent_at = 0, 0.0
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            before = json.loads(line)
            self.curves.add(before["done"], before["values"])
            if before["done"] == done:
                self._tell(before["stage"], before["step"])

    def progress(self, task: str) -> Callable[[int, int], None]:
        """Show the progress of a preparation; an interrupt ends it at once."""
        show_bar, began, told, before = super().progress(task), perf_counter(), 0.0, -1

        def show(done: int, total: int) -> None:
            nonlocal told, before
            self._cancellation.raise_if_asked()  # nothing is lost: finished parts are on the disk
            show_bar(done, total)
            before = done - 1 if before < 0 else before  # those that an earlier run has finished took no time
            now = perf_counter()
            if done < total and now - told < SECONDS_BETWEEN:
                return
            told, left = now, (now - began) / (done - before) * (total - done)
            counts = {"task": task, "done": done, "total": total, "time": tqdm.format_interval(left)}
            message = Message("{task}: {done} of {total}, {time} left", **counts)
            self._progress.prepare(done, total)
            self._progress.say(message)
            self._view.say(message if done < total else NOTHING)

        return show

    def step(self, stage: str, step: int, of: int, values: Mapping[str, Value]) -> None:
        """Report a step, and move the bar."""
        super().step(stage, step, of, values)
        with self._cancellation.deferred():  # the trainer polls it once the step is counted
            self._progress.at(self.done)
        if step == of or perf_counter() - self._sent_at > SECONDS_BETWEEN:
            self._tell(stage, step)

    def on_values_read(self, done: int, stage: str, step: int, values: Mapping[str, float | None]) -> None:
        """Add the losses of a step to the curves."""
        self.curves.add(done, values)

    def _tell(self, stage: str, step: int) -> None:
        self._sent_at = perf_counter()
        number, _, kind = stage.partition("-")
        spec, losses = self._recipe.stages[int(number) - 1], self.curves.points()
        ratio = spec.ratio if isinstance(spec, SelfForcingStage) else 1  # users count the generator's updates
        updates, of = -(-step // ratio), -(-spec.steps // ratio)
        training = {
            "stage": kind,
            "step": updates,
            "of": of,
            "left": self.seconds_left[1],
            "losses": losses,
            "file": "",
        }
        self._view.tell(chunk=self.done, training=training)
        now = listed(
            Message("{network} {loss}", network=_IN_WORDS[network], loss=f"{points[-1][1]:.3g}")
            for network, points in losses.items()
        )
        stage_name = {"stage": _IN_WORDS[kind], "n": updates, "of": of, "losses": now}
        self._progress.say(Message("{stage} {n}/{of} · loss of {losses}", **stage_name))

    def sample(self, stage: str, step: int, frames: Tensor, fps: float, prompts: Sequence[str]) -> Path:
        """Show samples on the node, and write them."""
        if not stage.endswith("-long"):
            self._view.show(in_grid(frames), self._samples, self.done)
            self._samples += 1
        return super().sample(stage, step, frames, fps, prompts)

    def message(self, text: str) -> None:
        """Log a line."""
        host.log.info("%s", text)


_IN_WORDS = {
    "causal": Message("causal start"),
    "self-forcing": Message("self forcing"),
    "generator": Message("generator"),
    "critic": Message("critic"),
}


class NodeGroup(Group):
    """A single process inside a node, which ComfyUI can interrupt."""

    def __init__(self, recipe: Recipe, view: LiveView, bar: host.NodeProgress, cancellation: Cancellation) -> None:
        self._recipe, self._view, self._bar, self._cancellation = recipe, view, bar, cancellation
        self.losses: list[float] = []  # the generator's

    def run_log(self, folder: Path, steps: int, done: int) -> RunLog:
        """Make the run log that reports on the node."""
        report = NodeReport(folder, self._recipe, done, self._view, self._bar, self._cancellation)
        self.losses = report.curves.generator
        return report
