"""The trainer: runs a recipe's stages in order, and can be killed and resumed at any time."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cancellation import Cancellation, Cancelled
from ..files.disk import check_room
from ..files.safetensors_file import open_tensors
from .cost.disk import architecture_in, run_bytes, smaller_run
from .data.video_folder import video_files
from .engine.process_group import Group
from .engine.run_log import RunLog
from .recipe import Recipe
from .stages.base import StageRun
from .stages.flow import CausalTraining, TeacherTraining
from .stages.run_context import RunContext
from .stages.self_forcing import SelfForcingTraining
from .stages.vae import VAETraining

STAGES: dict[str, type[StageRun]] = {
    "vae": VAETraining,
    "teacher": TeacherTraining,
    "causal": CausalTraining,
    "self-forcing": SelfForcingTraining,
}
STATE = "state.safetensors"
SAVING_SHARE = 0.05  # largest share of the time for saving: small networks are saved at nearly every step
MAY_CHANGE = ("about", "device", "samples")  # recipe keys that may change before a resume; so may later stages


class Trainer:
    """One run of a recipe.

    Random numbers depend on the seed, the stage and the step alone, and all that a step changes is in the saved state.
    So a run that was killed and resumed ends with the same weights as an uninterrupted one: bit for bit on the CPU
    with the same number of threads.

    Args:
        recipe: The recipe, its file or its name.
        folder: Folder of the run; None: ``runs/<name>``.
        resume: Continue the run in the folder. Several processes start a new run if there is none, because ``torchrun``
            restarts them with the same command.
        over: Delete an earlier run of the same name in the folder first.
        group: The processes that train together, each with its own trainer; None: this process alone.
        make_context: Makes the `RunContext`. A host with its own prompts and VAE passes another class.
        cancellation: Polled after every step; None: of this run alone. Signals cancel it too.

    Raises:
        ValueError: For a folder with another run, for none to resume, and for files or settings of the recipe that
            cannot be used.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path,
        folder: str | Path | None = None,
        resume: bool = False,
        over: bool = False,
        group: Group | None = None,
        make_context: Callable[[Recipe, Path, Group], RunContext] = RunContext,
        cancellation: Cancellation | None = None,
    ) -> None:
        self.group, self._make_context = group or Group(), make_context
        self._cancellation, self._in_steps = cancellation or Cancellation(), False
        self.recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
        self.folder = Path(folder) if folder else Path("runs") / self.recipe.name
        self._state = self.folder / STATE
        missing = self.recipe.files.missing()
        if missing:
            raise ValueError(f"the recipe names files that do not exist: {'; '.join(missing)}")
        self.group.check_recipe(self.recipe)
        with self.group.rank0_first():
            if over and self._state.exists() and _recipe_of(self._state)["name"] == self.recipe.name:
                shutil.rmtree(self.folder)
        self._resumed = resume and (self._state.exists() or self.group.size == 1)
        if self._resumed:
            self._stage, self._step, self._tensors = self._load()
        elif self._state.exists():
            raise ValueError(f"{self.folder} holds a run already: resume it (--resume), or name another folder")
        else:
            self._stage, self._step, self._tensors = 0, 0, dict[str, Tensor]()
        self._threads = int(open_tensors(self._state)[1]["sf.threads"]) if self._resumed else None
        self._saved_at, self._save_seconds = time.monotonic(), 0.0

    def run(self) -> Path:
        """Train to the end.

        SIGTERM and Ctrl-C stop the run after the current step. The state is then saved, and the stage writes its
        network as trained so far.

        Returns:
            The file of the network that the last stage made.

        Raises:
            TrainingStopped: After SIGTERM or Ctrl-C.
            OSError: The disk has too little room for a new run; nothing has been made.
        """
        if not self._resumed:
            self._check_disk()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._resumed:
            self._save({})
        context = self._make_context(self.recipe, self.folder, self.group)
        done = sum(stage.steps for stage in self.recipe.stages[: self._stage]) + self._step
        with self.group.run_log(self.folder, self.recipe.steps, done) as run_log, self._stop_on_signals(run_log):
            if self._threads not in (None, torch.get_num_threads()):
                run_log.message(
                    f"started with {self._threads} threads: with another number, results may differ in the last bits"
                )
            while self._stage < len(self.recipe.stages):
                self._run_stage(context, run_log)
        return context.network_path(STAGES[self.recipe.stages[-1].kind].makes)

    def _check_disk(self) -> None:
        files, world = self.recipe.files, self.recipe.world
        clips = len(video_files(files.videos)) if files.videos else world.clips if world else 0
        needed = run_bytes(self.recipe, lambda name: architecture_in(self.recipe, name), clips)
        check_room({self.folder: needed}, or_else=smaller_run(self.recipe))

    def request_stop(self) -> None:
        """Let `run` stop after the current step, as SIGTERM does."""
        self._cancellation.cancel()

    def _run_stage(self, context: RunContext, run_log: RunLog) -> None:
        spec = self.recipe.stages[self._stage]
        stage = STAGES[spec.kind](spec, context, self._stage, run_log)
        if self._step:
            stage.load(self._tensors)
        self._tensors, self._in_steps = {}, True
        for step in range(self._step, spec.steps):
            values = stage.step(step)
            self._step = step + 1
            run_log.step(stage.name, self._step, spec.steps, values)
            self._save_if_due(stage, run_log)
            if self._step % self.recipe.samples.every == 0 and self._step < spec.steps:
                self._show(stage, run_log)
        # `finish` may overwrite the file that this stage started from, so the state is saved before it
        run_log.flush()
        self._save(stage.state())
        stage.finish()
        stage.show(spec.steps)
        self._stage, self._step, self._in_steps = self._stage + 1, 0, False
        self._save({})
        context.drop_networks()

    def _show(self, stage: StageRun, run_log: RunLog) -> None:
        """Write samples. If that fails or is interrupted, save the state first, so that no training is lost."""
        try:
            stage.show(self._step)
        except BaseException:
            if self.group.size == 1:  # saving is collective, and other ranks may not have failed
                self._save_progress(stage, run_log)
            raise

    # State ----------------------------------------------------------------------------------------------------------

    def _save_if_due(self, stage: StageRun, run_log: RunLog) -> None:
        since_save = time.monotonic() - self._saved_at
        due = self.group.is_rank0 and self._save_seconds <= SAVING_SHARE * since_save
        stop, due = self.group.any_rank([self._cancellation.asked, due])
        if stop:
            network = self._save_progress(stage, run_log)
            raise TrainingStopped(
                f"stopped after step {self._step} of stage {stage.name}; the network trained so far is in {network}, "
                "and --resume continues from there"
            )
        if due:
            run_log.flush()
            self._save(stage.state())

    def _save_progress(self, stage: StageRun, run_log: RunLog) -> Path:
        """Save the state, write the stage's network as trained so far, and return the network's file."""
        run_log.flush()
        self._save(stage.state())
        stage.finish()
        return stage.context.network_path(stage.makes)

    def _save(self, tensors: dict[str, Tensor]) -> None:
        started = time.monotonic()
        metadata = {
            "sf.stage": str(self._stage),
            "sf.step": str(self._step),
            "sf.recipe": json.dumps(_as_json(self.recipe)),
            "sf.threads": str(torch.get_num_threads()),
        }
        self.group.write_state(self._state, tensors, metadata)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - started

    def _load(self) -> tuple[int, int, dict[str, Tensor]]:
        if not self._state.exists():
            raise ValueError(f"there is no run to resume in {self.folder}: start one without --resume")
        metadata = open_tensors(self._state)[1]
        changed = differences(self.recipe, self._state)
        if changed:
            raise ValueError(
                f"the run in {self.folder} was started with another recipe: {', '.join(changed)} differ. Use that one, "
                "or name another folder"
            )
        stage, step = int(metadata["sf.stage"]), int(metadata["sf.step"])
        return stage, step, self.group.read_state(self._state)

    # Stopping -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _stop_on_signals(self, run_log: RunLog) -> Iterator[None]:
        """Let the first SIGTERM or Ctrl-C stop the run after the current step.

        While a stage prepares, it stops at once: what is prepared is written to the disk as it is made.
        """

        def stop(number: int, frame: object) -> None:
            if not self._in_steps:
                raise TrainingStopped("stopped while a stage was preparing; --resume continues from there")
            if self._cancellation.asked:
                raise KeyboardInterrupt
            self.request_stop()
            run_log.message("stopping after this step; once more to stop at once")

        try:
            previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # signal handlers need the main thread; elsewhere the host handles stopping
            yield
            return
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class TrainingStopped(Cancelled):
    """The run was asked to stop. It can be resumed."""


def differences(recipe: Recipe, state: Path) -> list[str]:
    """Return the keys of ``recipe`` that prevent resuming the run with this state file.

    Raises:
        ValueError: If the file is not a training state.
    """
    before, now = _recipe_of(state), _as_json(recipe)
    _fill_in(before, recipe)
    metadata = open_tensors(state)[1]
    started_stages = int(metadata["sf.stage"]) + (int(metadata["sf.step"]) > 0)
    for settings in (before, now):
        settings["stages"] = settings["stages"][:started_stages]
    return [key for key in now if key not in MAY_CHANGE and before.get(key) != now[key]]


def _fill_in(before: dict[str, Any], settings: Any) -> None:
    """Give the settings of an earlier version the defaults of those that it did not have, which it ran with."""
    for field in fields(settings):
        made: Any = field.default_factory() if field.default_factory is not MISSING else field.default
        if field.name not in before and made is not MISSING:
            before[field.name] = json.loads(
                json.dumps(asdict(made) if hasattr(made, "__dataclass_fields__") else made, default=str)
            )
        then, now = before.get(field.name), getattr(settings, field.name)
        if is_dataclass(now) and isinstance(then, dict):
            _fill_in(then, now)
    for then, now in zip(before.get("stages", ()), getattr(settings, "stages", ()), strict=False):
        if then.get("kind") == now.kind:
            _fill_in(then, now)


def _as_json(recipe: Recipe) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(recipe), default=str))


def _recipe_of(state: Path) -> dict[str, Any]:
    metadata = open_tensors(state)[1]
    if "sf.recipe" not in metadata:
        raise ValueError(f"{state} is not the state of a training")
    return json.loads(metadata["sf.recipe"])
