"""The trainer: a recipe's stages one after the other, to be killed and resumed at any time."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cancellation import Cancellation, Cancelled
from ..files.safetensors_file import open_tensors
from .engine.process_group import Group
from .engine.run_log import Report
from .recipe import Recipe
from .stages.base import StageRun
from .stages.flow import CausalTraining, TeacherTraining
from .stages.run_context import Parts
from .stages.self_forcing import SelfForcingTraining
from .stages.vae import VAETraining

STAGES: dict[str, type[StageRun]] = {
    "vae": VAETraining,
    "teacher": TeacherTraining,
    "causal": CausalTraining,
    "self-forcing": SelfForcingTraining,
}
STATE = "state.safetensors"
SAVING_SHARE = 0.05  # of the time may go into saving: small networks are saved at nearly every step, large ones seldom
MAY_CHANGE = ("about", "device", "samples")  # of a recipe, between a run and its going on; and stages not yet begun


class Trainer:
    """Runs a recipe in ``folder`` (None: ``runs/<name>``).

    All that a step draws is addressed by the seed, the stage and the step, and all that it changes is in the state that
    is saved; so a run that was killed, at any moment, ends with the same weights as one that was not: bit for bit on
    the CPU with the same number of threads.

    resume: go on with what is in the folder; several processes begin, if there is nothing: they are started again by
    the command that started them. over: begin anew where a run of the same name is already.
    group: the processes that train together, each with a trainer of its own; None: one.
    parts: makes what the stages work with; another host of the training has prompts and a VAE of its own.
    cancellation: polled after every step; None: of this run alone. Signals call its `cancel`.
    Raises ValueError for a folder that another run is in, or none to go on with; and what the recipe's files and
    settings give rise to.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path,
        folder: str | Path | None = None,
        resume: bool = False,
        over: bool = False,
        group: Group | None = None,
        parts: Callable[[Recipe, Path, Group], Parts] = Parts,
        cancellation: Cancellation | None = None,
    ) -> None:
        self.group, self._make_parts = group or Group(), parts
        self._cancellation, self._at_steps = cancellation or Cancellation(), False
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
        self.folder = Path(folder) if folder else Path("runs") / self.recipe.name
        self._state = self.folder / STATE
        missing = self.recipe.files.missing()
        if missing:
            raise ValueError(f"the recipe names files that are not there: {'; '.join(missing)}")
        self.group.check(self.recipe)
        with self.group.first_alone():
            if over and self._state.exists() and _recipe_of(self._state)["name"] == self.recipe.name:
                shutil.rmtree(self.folder)
        self._resumed = resume and (self._state.exists() or self.group.size == 1)
        if self._resumed:
            self._stage, self._step, self._tensors = self._load()
        elif self._state.exists():
            raise ValueError(f"{self.folder} holds a run already: go on with it (--resume), or name another folder")
        else:
            self._stage, self._step, self._tensors = 0, 0, dict[str, Tensor]()
        self._threads = int(open_tensors(self._state)[1]["sf.threads"]) if self._resumed else None
        self._saved_at, self._saving_took = time.monotonic(), 0.0

    def run(self) -> Path:
        """Train to the end -> the file of the last network made.

        SIGTERM and Ctrl-C end it after the step at work: then raises `Stopped`, with all of it saved and what the
        stage has learnt so far written as what it makes.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._resumed:
            self._save({})
        parts = self._make_parts(self.recipe, self.folder, self.group)
        done = sum(stage.steps for stage in self.recipe.stages[: self._stage]) + self._step
        with self.group.report(self.folder, self.recipe.steps, done) as report, self._stopping_politely(report):
            if self._threads not in (None, torch.get_num_threads()):
                report.message(
                    f"begun with {self._threads} threads: with another number, results may differ in last bits"
                )
            while self._stage < len(self.recipe.stages):
                self._run_stage(parts, report)
        return parts.made(STAGES[self.recipe.stages[-1].kind].makes)

    def request_stop(self) -> None:
        """Let `run` stop after the current step, as SIGTERM does."""
        self._cancellation.cancel()

    def _run_stage(self, parts: Parts, report: Report) -> None:
        spec = self.recipe.stages[self._stage]
        stage = STAGES[spec.kind](spec, parts, self._stage, report)
        if self._step:
            stage.load(self._tensors)
        self._tensors, self._at_steps = {}, True
        for step in range(self._step, spec.steps):
            values = stage.step(step)
            self._step = step + 1
            report.step(stage.name, self._step, spec.steps, values)
            self._save_if_due(stage, report)
            if self._step % self.recipe.samples.every == 0 and self._step < spec.steps:
                self._show(stage, report)
        # what `finish` writes may be what this stage began with: from here on, only the state leads back into it
        report.flush()
        self._save(stage.state())
        stage.finish()
        stage.show(spec.steps)
        self._stage, self._step, self._at_steps = self._stage + 1, 0, False
        self._save({})
        parts.forget()

    def _show(self, stage: StageRun, report: Report) -> None:
        """Samples. Whatever goes wrong with them, or ends them, takes away nothing that was learnt."""
        try:
            stage.show(self._step)
        except BaseException:
            if self.group.size == 1:  # several may not all be here
                self._keep(stage, report)
            raise

    # State ----------------------------------------------------------------------------------------------------------

    def _save_if_due(self, stage: StageRun, report: Report) -> None:
        waited = time.monotonic() - self._saved_at
        due = self.group.first and self._saving_took <= SAVING_SHARE * waited
        stop, due = self.group.any([self._cancellation.asked, due])
        if stop:
            made = self._keep(stage, report)
            raise Stopped(
                f"stopped after step {self._step} of stage {stage.name}; what it has learnt so far is in {made}, and "
                "--resume goes on from there"
            )
        if due:
            report.flush()
            self._save(stage.state())

    def _keep(self, stage: StageRun, report: Report) -> Path:
        """The state, and what the stage has learnt so far as the network that it makes -> where that is."""
        report.flush()
        self._save(stage.state())
        stage.finish()
        return stage.parts.made(stage.makes)

    def _save(self, tensors: dict[str, Tensor]) -> None:
        began = time.monotonic()
        facts = {
            "sf.stage": str(self._stage),
            "sf.step": str(self._step),
            "sf.recipe": json.dumps(_as_json(self.recipe)),
            "sf.threads": str(torch.get_num_threads()),
        }
        self.group.write_state(self._state, tensors, facts)
        self._saved_at = time.monotonic()
        self._saving_took = self._saved_at - began

    def _load(self) -> tuple[int, int, dict[str, Tensor]]:
        if not self._state.exists():
            raise ValueError(f"there is no run to go on with in {self.folder}: begin one without --resume")
        facts = open_tensors(self._state)[1]
        other = differences(self.recipe, self._state)
        if other:
            raise ValueError(
                f"the run in {self.folder} was begun with another recipe: {', '.join(other)} differ. Take that one, or "
                "name another folder"
            )
        stage, step = int(facts["sf.stage"]), int(facts["sf.step"])
        return stage, step, self.group.read_state(self._state)

    # Stopping -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _stopping_politely(self, report: Report) -> Iterator[None]:
        """While it steps, the first SIGTERM or Ctrl-C is kept for the end of the step.

        Before that, what a stage makes ready is on the disk as soon as it is made.
        """

        def stop(number: int, frame: object) -> None:
            if not self._at_steps:
                raise Stopped("stopped while a stage was getting ready; --resume goes on from there")
            if self._cancellation.asked:
                raise KeyboardInterrupt
            self.request_stop()
            report.message("stopping after this step; once more to stop at once")

        try:
            previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: whoever runs it there has his own ways
            yield
            return
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class Stopped(Cancelled):
    """The run was asked to stop, and has saved itself."""


def differences(recipe: Recipe, state: Path) -> list[str]:
    """What of a recipe keeps it from going on with the run whose state that is: names of its keys.

    Raises ValueError for a file that is no such state.
    """
    before, now = _recipe_of(state), _as_json(recipe)
    facts = open_tensors(state)[1]
    begun = int(facts["sf.stage"]) + (int(facts["sf.step"]) > 0)
    for one in (before, now):
        one["stages"] = one["stages"][:begun]
    return [key for key in now if key not in MAY_CHANGE and before.get(key) != now[key]]


def _as_json(recipe: Recipe) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(recipe), default=str))


def _recipe_of(state: Path) -> dict[str, Any]:
    facts = open_tensors(state)[1]
    if "sf.recipe" not in facts:
        raise ValueError(f"{state} is not the state of a training")
    return json.loads(facts["sf.recipe"])
