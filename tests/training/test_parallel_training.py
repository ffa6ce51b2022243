"""Training on two processes: the losses and weights of one, whatever is killed and on how many it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sf_core
from sf_core.files.safetensors_file import open_tensors
from sf_core.model.architecture import WanArchitecture
from sf_core.training import Trainer
from sf_core.training.engine.networks import new_transformer, save_transformer
from sf_core.training.engine.process_group import Group
from sf_core.training.engine.shards import SHARDS
from sf_core.training.recipe import Recipe
from tests.helpers import relative
from tests.processes import ROOT, environment, run, torchrun
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

RECIPE = """
name = "shared"
frames = 6
latent_size = [4, 4]
[rollout]
chunk_frames = 3
window_frames = 6
denoising_steps = [1000, 500]
[world]
size = 32
clips = 4
[files]
teacher = "TEACHER"
[samples]
every = 1000
long = 1
prompts = ["a red circle moving left slowly on a black background"]
[[stages]]
kind = "self-forcing"
accumulate = 2
steps = STEPS
ratio = 2
guidance = 1.0
optimizer = { lr = 5e-4, ema = 0.5 }
critic = { lr = 1e-3, betas = [0.5, 0.99] }
"""
STEPS = {"plain": 8, "checkpointing": 3, "sid": 3}
VARIANTS = {
    "plain": "",
    "checkpointing": 'checkpointing = true\nkv_gradient = "straight-through"\n',
    "sid": 'loss = "sid"\n',
}

# Both processes train by each recipe, stop one in the middle, go on with it, and with what one process began.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
from sf_core.model.sequence_parallel import joined
from sf_core.training import Trainer
from sf_core.training.engine import fsdp
from sf_core.training.engine.fsdp import Processes, save
from sf_core.training.engine.shards import full_tensor, local_shard
from sf_core.training.stages.self_forcing import SelfForcingTraining
from sf_core.training.trainer import TrainingStopped
from tests.helpers import random_latents, random_model, prompt

torch.set_num_threads(1)
folder = Path(sys.argv[1])


def train(recipe, name, group, resume=False):
    return Trainer(folder / f"{recipe}.toml", folder / name, resume=resume, group=group).run()


def stopped_at(index, rank):
    step = SelfForcingTraining.step

    def stepped(self, at):
        if at == index and torch.distributed.get_rank() == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, at)

    SelfForcingTraining.step = stepped
    return lambda: setattr(SelfForcingTraining, "step", step)


def held(model, what="data"):
    parts = sum(local_shard(getattr(p, what)).numel() for p in model.parameters())
    return parts / sum(p.numel() for p in model.parameters())


with joined("cpu") as device:
    group = Processes(device)
    for name in sys.argv[2:]:
        train(name, f"two-{name}", group)
    train("plain", "begun-by-one", group, resume=True)
    for name in ("stopped", "left-to-one"):
        undo = stopped_at(2, rank=1)
        try:
            train("plain", name, group)
        except TrainingStopped as stop:
            print(stop)
        undo()
    train("plain", "stopped", group, resume=True)

    # a save that is broken off before its file says that it counts
    state, kept = folder / "state.safetensors", {"a": torch.ones(4, 2), "b": torch.tensor(3)}
    group.write_state(state, kept, {"sf.step": "1"})
    fsdp.save = lambda tensors, checkpoint_id: (save(tensors, checkpoint_id=checkpoint_id), 1 / 0)
    try:
        group.write_state(state, {"a": torch.zeros(4, 2), "b": torch.tensor(4)}, {"sf.step": "2"})
    except ZeroDivisionError:
        fsdp.save = save
    stored = {name: full_tensor(value) for name, value in group.read_state(state).items()}
    broken = (folder / "state-b").exists() and all(value.equal(kept[name]) for name, value in stored.items())
    group.write_state(state, {"a": torch.zeros(4, 2)}, {"sf.step": "2"})
    again = full_tensor(group.read_state(state)["a"]).sum().item() == 0 and not (folder / "state-a").exists()

    model, alone = group.shard(random_model()).requires_grad_(True), random_model()
    args = random_latents(6), torch.full((1, 6), 300.0), prompt(0), 3
    flow, shares = model.predict(*args), [held(model)]
    flow.square().sum().backward()
    shares += [held(model), held(model, "grad")]
    found = {"saves": [broken, again], "flow": float((flow - alone.predict(*args)).abs().max()), "shares": shares}
    Path(folder / f"found{group.rank}.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes, and of one by the same recipes."""
    folder = tmp_path_factory.mktemp("shared")
    arch = WanArchitecture(32, 64, 2, 2, text_dim=64, text_len=12, freq_dim=16, in_dim=4, out_dim=4)
    model, rng = new_transformer(arch, 0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=0.1)
    save_transformer(folder / "teacher.safetensors", model, sf_core.RolloutConfig(), (4, 4), {})
    for name, more in VARIANTS.items():
        recipe = RECIPE.replace("STEPS", str(STEPS[name])).replace("TEACHER", str(folder / "teacher.safetensors"))
        (folder / f"{name}.toml").write_text(recipe + more)
        Trainer(folder / f"{name}.toml", folder / f"one-{name}").run()
    stop_after(3, folder / "plain.toml", folder / "begun-by-one")
    (folder / "script.py").write_text(SCRIPT)
    done = run(2, folder / "script.py", folder, *VARIANTS)
    assert done.returncode == 0, done.stderr
    return folder


def stop_after(steps: int, recipe: Path, folder: Path) -> None:
    """Train so far and no further, as if killed right after that was saved."""

    class Killed(Exception):
        pass

    class Watched(Trainer):
        def _save(self, tensors: dict[str, torch.Tensor]) -> None:
            super()._save(tensors)
            if self._step == steps and tensors:
                raise Killed

        def _save_if_due(self, *args: Any) -> None:
            self._save_seconds = 0.0
            super()._save_if_due(*args)

    with pytest.raises(Killed):
        Watched(recipe, folder).run()


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line)["values"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_training(ours: Path, theirs: Path, rounding: float = 2e-5) -> None:
    """Losses, gradients' norms, the average of the generator and the critic are equal but for float32 rounding."""
    first, second = metrics(ours), metrics(theirs)
    assert [list(values) for values in first] == [list(values) for values in second]
    assert len(first) == STEPS.get(ours.name.removeprefix("two-"), STEPS["plain"])
    for values, expected in zip(first, second, strict=True):
        assert values == pytest.approx(expected, rel=rounding)
    for name in ("model", "critic"):
        mine, other = (load_file(folder / f"{name}.safetensors") for folder in (ours, theirs))
        assert mine.keys() == other.keys()
        assert max(relative(mine[key], other[key]) for key in mine) <= rounding


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_train_as_one_does(folder: Path, variant: str) -> None:
    same_training(folder / f"two-{variant}", folder / f"one-{variant}")


def test_what_is_kept_was_trained_and_is_the_average(folder: Path) -> None:
    """So that the others are no comparison of networks which stayed as they were."""
    start, model, critic = (
        load_file(path)
        for path in (
            folder / "teacher.safetensors",
            *(folder / f"two-plain/{n}.safetensors" for n in ("model", "critic")),
        )
    )
    assert min(relative(network[key], start[key]) for network in (model, critic) for key in start) > 1e-6
    assert "recipe shared" in sf_core.load_model(folder / "two-plain" / "model.safetensors").metadata["sf.trained"]


def test_each_holds_half_of_the_weights_and_gradients_and_gathers_them_to_compute(folder: Path) -> None:
    found = [json.loads((folder / f"found{rank}.json").read_text()) for rank in (0, 1)]
    for rank in (0, 1):
        assert found[rank]["flow"] < 1e-5
    for shares in zip(*(f["shares"] for f in found), strict=True):
        assert sum(shares) == pytest.approx(1)
        assert max(shares) < 0.55


def test_asked_to_stop_in_one_process_both_save_and_go_on_to_the_same_bits(folder: Path) -> None:
    same_training(folder / "stopped", folder / "two-plain", rounding=0)


def test_what_one_process_began_two_go_on_with(folder: Path) -> None:
    same_training(folder / "begun-by-one", folder / "one-plain")


def test_what_two_processes_began_one_goes_on_with(folder: Path) -> None:
    state = folder / "left-to-one" / "state.safetensors"
    stored, facts = open_tensors(state)
    assert not stored
    assert len(list((state.parent / facts[SHARDS]).glob("*.distcp"))) == 2
    Trainer(folder / "plain.toml", folder / "left-to-one", resume=True).run()
    same_training(folder / "left-to-one", folder / "one-plain")
    assert not list(state.parent.glob("state-*"))


def test_a_save_that_is_broken_off_leaves_the_one_before(folder: Path) -> None:
    for rank in (0, 1):
        assert json.loads((folder / f"found{rank}.json").read_text())["saves"] == [True, True]


def test_one_process_reports_for_both(folder: Path) -> None:
    assert len(metrics(folder / "two-plain")) == STEPS["plain"]
    assert (folder / "two-plain" / "samples" / "1-self-forcing-000008-drift.png").exists()


# A process that is killed --------------------------------------------------------------------------------------------


def process_of(rank: int, agent: subprocess.Popen[bytes]) -> int:
    """The process of that rank that ``torchrun`` started."""
    for task in Path(f"/proc/{agent.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
    raise AssertionError(f"there is no process of rank {rank}")


def test_a_killed_process_is_started_again_and_the_training_ends_with_the_same_bits(folder: Path) -> None:
    out, log = folder / "killed", folder / "log.txt"
    command = ["-m", "sf_core", "train", "--recipe", folder / "plain.toml", "--out", out, "--threads", "1", "--resume"]
    with log.open("wb") as said:
        agent = subprocess.Popen(
            torchrun(2, *command, restarts=3), cwd=ROOT, env=environment(), stdout=said, stderr=said
        )
    try:
        wait_until(lambda: saved_in_the_middle(out) or agent.poll() is not None, "a save in the middle of the training")
        os.kill(process_of(1, agent), signal.SIGKILL)
        assert agent.wait(timeout=600) == 0, log.read_text()
    finally:
        agent.terminate()
    # at least: torch may abort a process at its very end, on a busy machine, and then it is started once more
    assert log.read_text().count("training shared in") >= 2
    same_training(out, folder / "two-plain", rounding=0)


def saved_in_the_middle(folder: Path) -> bool:
    """Whether a state with tensors is there, of a step that is not the last."""
    state = folder / "state.safetensors"
    return state.exists() and 0 < int(open_tensors(state)[1]["sf.step"]) < STEPS["plain"] - 2


# What cannot be shared -----------------------------------------------------------------------------------------------


def test_every_batch_is_one_process_s() -> None:
    groups = [Group() for _ in range(3)]
    for rank, group in enumerate(groups):
        group.rank, group.size = rank, 3
    assert sorted(number for group in groups for number in group.share(12)) == list(range(12))
    assert {len(group.share(12)) for group in groups} == {4}
    assert [group.is_rank0 for group in groups] == [True, False, False]


def test_batches_that_cannot_be_dealt_out_are_an_error_that_says_what_to_do(folder: Path) -> None:
    class Three(Group):
        size = 3

    with pytest.raises(ValueError, match="accumulate = 2 batches an update, which 3 processes cannot share equally"):
        Trainer(Recipe.read(folder / "plain.toml"), folder / "three", group=Three())
    assert not (folder / "three").exists()
