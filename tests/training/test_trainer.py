"""The trainer: recipes run through, are killed and resumed, and say what is wrong with them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import sf_core
from sf_core import tiny
from sf_core.__main__ import main
from sf_core.files.checkpoint import latent_normalisation
from sf_core.files.video import read_record
from sf_core.tiny.world import prompts
from sf_core.training import DMD, TeacherForcing, Trainer, rollout, trainer
from sf_core.training.cost.disk import run_bytes
from sf_core.training.data.latent_store import LatentStore
from sf_core.training.losses.autoencoder import encode_moments
from sf_core.training.recipe import RECIPES, Recipe
from sf_core.training.trainer import TrainingStopped
from sf_core.vae.loading import load_vae
from tests.training.recipes import CAUSAL, SELF_FORCING, TEACHER, VAE, WORLD, write
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole small training, never disturbed; beside it the size of its largest state."""
    folder = tmp_path_factory.mktemp("training")
    write(folder, WORLD + VAE + TEACHER + CAUSAL + SELF_FORCING)
    states: list[int] = []

    class Watched(Trainer):
        def _save(self, tensors: dict[str, Tensor]) -> None:
            super()._save(tensors)
            states.append((self.folder / "state.safetensors").stat().st_size)

    Watched(folder / "recipe.toml", folder / "run").run()
    (folder / "largest_state").write_text(str(max(states)))
    return folder / "run"


def test_a_run_takes_the_room_on_the_disk_that_is_predicted(run: Path) -> None:
    recipe = Recipe.read(run.parent / "recipe.toml")
    assert recipe.world is not None
    arch = sf_core.load_model(run / "teacher.safetensors").arch
    predicted = run_bytes(recipe, lambda _: arch, recipe.world.clips)
    networks = [run / f"{name}.safetensors" for name in ("teacher", "causal", "model", "critic")]
    files = sum(file.stat().st_size for file in (*networks, *(run / "latents").iterdir()))
    most = files + 2 * int((run.parent / "largest_state").read_text())  # the old one is there while one is written
    assert 0.8 * most < predicted < 1.25 * most


@pytest.mark.parametrize(
    ("stages", "advice"),
    [
        (WORLD + TEACHER, "or train adapters ([lora]), or learn from fewer videos"),
        (
            WORLD + CAUSAL.replace("batch", 'by = "ode"\nbatch', 1),
            "or train adapters ([lora]), or solve fewer trajectories",
        ),
    ],
)
def test_a_run_that_does_not_fit_the_disk_is_refused_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stages: str, advice: str
) -> None:
    recipe = write(tmp_path, stages)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**16))
    assert main(["train", "--recipe", str(recipe), "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert re.search(r"run will take about .* MiB, and the disk has 64 KiB free", said)
    assert advice in said
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def saved_step(folder: Path) -> int:
    """The updates of its stage after which a run goes on."""
    with safe_open(folder / "state.safetensors", "pt") as state:
        return int(state.metadata()["sf.step"])


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def values(folder: Path, stage: str, name: str) -> list[float]:
    found = [m["values"][name] for m in metrics(folder) if m["stage"] == stage and name in m["values"]]
    assert found
    return found


def embed(run: Path, captions: Sequence[str]) -> torch.Tensor:
    encode = tiny.TinyText(run / "text" / "text.json", run / "text" / "text.safetensors").encode
    return torch.nn.utils.rnn.pad_sequence([encode(caption)[0] for caption in captions], batch_first=True)


@pytest.mark.parametrize(("stage", "name", "part"), [("1-vae", "l1", 0.5), ("2-teacher", "flow_loss", 0.75)])
def test_losses_fall(run: Path, stage: str, name: str, part: float) -> None:
    losses = values(run, stage, name)
    some = len(losses) // 5
    assert sum(losses[-some:]) < part * sum(losses[:some])


def test_the_causal_start_learns_to_see_only_the_past(run: Path) -> None:
    """On the same videos at the same noise, it is better than the bidirectional teacher that it began as."""
    latents, captions = LatentStore.open(run / "latents").batch(0, 24, 0)
    text = embed(run, captions)
    losses = {}
    for name in ("teacher", "causal"):
        rng = torch.Generator().manual_seed(1)
        model = sf_core.load_model(run / f"{name}.safetensors")
        losses[name] = float(
            TeacherForcing(config=model.rollout_config or sf_core.RolloutConfig())
            .loss(model, latents, text, rng=rng)
            .value
        )
    assert losses["causal"] < 0.97 * losses["teacher"]


def test_the_critic_learns_what_the_generator_makes(run: Path) -> None:
    """On new videos of the trained generator it is better than the teacher that it began as."""
    model, teacher, critic = (
        sf_core.load_model(run / f"{name}.safetensors") for name in ("model", "teacher", "critic")
    )
    text = embed(run, prompts(32, seed=5))
    made = rollout(model, text, sf_core.SeededNoise(99), model.rollout_config or sf_core.RolloutConfig(), 1, frames=6)
    losses = {}
    for name, network in (("teacher", teacher), ("critic", critic)):
        rng = torch.Generator().manual_seed(1)
        losses[name] = float(DMD(teacher, network, score_shift=5.0).critic_loss(made, text, rng=rng).value)
    assert losses["critic"] < 0.9 * losses["teacher"]


def test_what_was_trained_loads_and_makes_video(run: Path) -> None:
    model = sf_core.load_model(run / "model.safetensors")
    vae = sf_core.load_vae(run / "vae.safetensors")
    assert "recipe small, seed 0" in model.metadata["sf.trained"]
    assert latent_normalisation(model.metadata) == (vae.mean.tolist(), vae.std.tolist())  # for players of other VAEs
    session = sf_core.Session.start(model, embed(run, ["a blue square moving up"]))
    assert session.config.denoising_steps == (1000, 500)
    assert session.latent_size == (4, 4)
    session, latents = session.next_chunk()
    assert vae.decode(latents).shape == (1, 9, 32, 32, 3)


def test_the_command_line_makes_a_video_with_what_was_trained(run: Path, tmp_path: Path) -> None:
    from sf_core.__main__ import main

    parts = ["--model", run / "model.safetensors", "--vae", run / "vae.safetensors", "--text-encoder", run / "text"]
    words = ["--prompt", "a red circle moving left", "--seconds", "1", "--out", tmp_path / "video.mp4"]
    assert main(["generate", *map(str, parts), *map(str, words)]) == 0
    assert read_record(tmp_path / "video.mp4")["prompt"] == "a red circle moving left"


def test_info_says_where_a_training_stands(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sf_core.__main__ import main

    assert main(["info", str(run / "state.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "all done" in said
    assert "vae, teacher, causal, self-forcing" in said


def test_latents_are_normalised_by_the_vae_that_was_trained(run: Path) -> None:
    latents, _ = LatentStore.open(run / "latents").batch(0, 24, 0)
    assert float(latents.mean().abs()) < 0.05
    assert abs(float(latents.std()) - 1) < 0.05


def test_the_average_begins_when_it_is_told_to_and_is_what_is_kept(run: Path) -> None:
    """At the fixture's end the kept generator is the average, which is not the network that was trained last."""
    spec = Recipe.read(run.parent / "recipe.toml").stages[-1]
    assert spec.optimizer.ema_start == 2
    kept, start = load_file(run / "model.safetensors"), load_file(run / "causal.safetensors")
    assert any(not torch.equal(kept[name], start[name]) for name in kept)


def test_samples_and_a_drift_plot_are_there_for_each_stage(run: Path) -> None:
    names = {path.name for path in (run / "samples").iterdir()}
    assert {"1-vae-000050.mp4", "2-teacher-000150.mp4", "3-causal-000080.mp4", "4-self-forcing-000060.mp4"} <= names
    assert {"3-causal-000080-drift.png", "4-self-forcing-long-000060.mp4"} <= names
    assert list((run / "tensorboard").iterdir())


# Killing and resuming -----------------------------------------------------------------------------------------------


def train(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sf_core", "train", "--recipe", str(folder / "recipe.toml"), "--threads", "1"]
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(
        [*command, "--out", str(folder / "again"), *more], cwd=ROOT, stderr=log, stdout=log, text=True
    )


def steps_done(folder: Path) -> int:
    path = folder / "again" / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for(process: subprocess.Popen[str], folder: Path, steps: int) -> None:
    """Wait until so many steps are done, or the process has ended."""
    wait_until(lambda: steps_done(folder) >= steps or process.poll() is not None, f"{steps} steps")


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(run: Path) -> None:
    folder = run.parent
    process = train(folder)
    for number, steps in enumerate((20, 120, 220, 300)):
        wait_for(process, folder, steps)
        process.send_signal(signal.SIGTERM if number == 1 else signal.SIGKILL)
        code = process.wait(timeout=600)
        assert code == (130 if number == 1 else -signal.SIGKILL)
        process = train(folder, "--resume")
    assert process.wait(timeout=600) == 0, (folder / "log.txt").read_text()
    for name in ("vae", "teacher", "causal", "model", "critic"):
        assert (folder / "again" / f"{name}.safetensors").read_bytes() == (run / f"{name}.safetensors").read_bytes()
    first, again = metrics(run), metrics(folder / "again")
    assert [(m["stage"], m["step"], m["values"]) for m in again] == [
        (m["stage"], m["step"], m["values"]) for m in first
    ]


def test_killed_while_it_writes_what_it_began_with_a_stage_is_not_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second VAE stage writes over the first one's file. Without a save before that it would start from it again."""
    from sf_core.training import trainer
    from sf_core.training.stages.vae import VAETraining

    twice = Recipe.read(write(tmp_path, WORLD + VAE.replace("steps = 50", "steps = 3") * 2))
    undisturbed = Trainer(twice, tmp_path / "undisturbed").run().read_bytes()
    monkeypatch.setattr(trainer, "SAVING_SHARE", 0.0)  # as with a large network: hardly ever

    show = VAETraining.show

    def killed(self: VAETraining, step: int) -> None:
        if self.number == 1:
            raise KeyboardInterrupt
        show(self, step)

    monkeypatch.setattr(VAETraining, "show", killed)
    with pytest.raises(KeyboardInterrupt):
        Trainer(twice, tmp_path / "run").run()
    monkeypatch.setattr(VAETraining, "show", show)
    Trainer(twice, tmp_path / "run", resume=True).run()
    assert (tmp_path / "run" / "vae.safetensors").read_bytes() == undisturbed


def test_asked_to_stop_it_saves_after_the_step_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sf_core.training.stages.vae import VAETraining

    recipe = Recipe.read(write(tmp_path, WORLD + VAE))
    step = VAETraining.step

    def stepped(self: VAETraining, index: int) -> dict[str, torch.Tensor]:
        if index == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, index)

    monkeypatch.setattr(VAETraining, "step", stepped)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped, match="after step 4"):
        Trainer(recipe, tmp_path / "run").run()
    assert signal.getsignal(signal.SIGTERM) is before
    assert load_vae(tmp_path / "run" / "vae.safetensors")  # what it has learnt so far
    assert saved_step(tmp_path / "run") == 4


def test_samples_that_fail_cost_nothing_that_was_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sf_core.training.stages.vae import VAETraining

    recipe = Recipe.read(write(tmp_path, WORLD.replace("every = 1000", "every = 4") + VAE))
    monkeypatch.setattr(trainer, "SAVING_SHARE", 0)  # so that nothing else saves
    monkeypatch.setattr(VAETraining, "show", lambda self, step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Trainer(recipe, tmp_path / "run").run()
    assert saved_step(tmp_path / "run") == recipe.samples.every


def test_asked_to_stop_while_a_stage_gets_ready_it_does_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sf_core.training.stages.vae import VAETraining

    monkeypatch.setattr(VAETraining, "__init__", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    recipe = Recipe.read(write(tmp_path, WORLD + VAE))
    with pytest.raises(TrainingStopped, match="while a stage was preparing"):
        Trainer(recipe, tmp_path / "run").run()
    assert saved_step(tmp_path / "run") == 0


def test_a_run_is_not_begun_over_another_nor_gone_on_with_by_another_recipe(run: Path, tmp_path: Path) -> None:
    recipe = run.parent / "recipe.toml"
    with pytest.raises(ValueError, match="holds a run already"):
        Trainer(recipe, run)
    other = write(tmp_path, recipe.read_text().replace("ffn_dim = 64", "ffn_dim = 96"))
    with pytest.raises(ValueError, match="started with another recipe: model differ"):
        Trainer(other, run, resume=True)
    with pytest.raises(ValueError, match="no run to resume"):
        Trainer(recipe, tmp_path / "nothing", resume=True)
    assert Trainer(recipe, run, resume=True).run() == run / "model.safetensors"


def test_stages_that_have_not_begun_may_still_be_changed(run: Path, tmp_path: Path) -> None:
    """So a run is gone on with by more stages than it had; what was trained stays, and what it was trained by."""
    short = write(tmp_path, WORLD + VAE.replace("steps = 50", "steps = 3"))
    Trainer(short, tmp_path / "run").run()
    before = load_file(tmp_path / "run" / "vae.safetensors")
    longer = WORLD + VAE.replace("steps = 50", "steps = 3") + TEACHER.replace("steps = 150", "steps = 2")
    assert Trainer(write(tmp_path, longer), tmp_path / "run", resume=True).run().name == "teacher.safetensors"
    after = load_file(tmp_path / "run" / "vae.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    other = longer.replace("steps = 2", "steps = 4")
    with pytest.raises(ValueError, match="started with another recipe: stages differ"):
        Trainer(write(tmp_path, other), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="started with another recipe: stages differ"):
        Trainer(write(tmp_path, WORLD + VAE.replace("steps = 50", "steps = 3")), tmp_path / "run", resume=True)


def test_a_decoder_trained_alone_leaves_the_latents_of_its_vae_as_they_are(tmp_path: Path) -> None:
    """Transformers of these latents stay valid. Their scale, too, which would be another one in this small world."""
    before = tiny.load_vae().state_dict()
    files = f'[files]\nvae = "{tiny.FOLDER / "vae.safetensors"}"\n'
    stage = VAE.replace("dim = 4", "decoder_only = true").replace("frames = 1", "frames = 5")
    recipe = write(tmp_path, WORLD + files + stage.replace("steps = 50", "steps = 2"))
    after = load_file(Trainer(recipe, tmp_path / "run").run())
    changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert changed == {name for name in before if name.startswith(("decoder.", "conv2."))}


def test_a_decoder_trained_alone_has_each_clip_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sf_core.training.stages import vae as stage_module

    encoded: list[int] = []

    def counted(vae: Any, frames: Tensor) -> tuple[Tensor, Tensor]:
        encoded.append(len(frames))
        return encode_moments(vae, frames)

    monkeypatch.setattr(stage_module, "encode_moments", counted)
    files = f'[files]\nvae = "{tiny.FOLDER / "vae.safetensors"}"\n'
    stage = VAE.replace("dim = 4", "decoder_only = true").replace("frames = 1", "frames = 5")
    world = WORLD.replace("clips = 24", "clips = 4")
    Trainer(write(tmp_path, world + files + stage.replace("steps = 50", "steps = 3")), tmp_path / "run").run()
    assert encoded == [1] * 4


def test_a_teacher_learns_from_the_beginnings_of_clips_first(begun: Path) -> None:
    stages = '[[stages]]\nkind = "teacher"\nframes = FRAMES\nweighted = false\nbatch = 2\nsteps = 2\n'
    recipe = write(begun, (begun / "head.toml").read_text() + stages.replace("FRAMES", "3"))
    assert Trainer(recipe, begun / "short").run().exists()
    with av.open(str(next((begun / "short" / "samples").glob("*.mp4")))) as video:
        assert sum(1 for _ in video.decode(video=0)) == 1 + 4 * 2
    too_long = write(begun, (begun / "head.toml").read_text() + stages.replace("FRAMES", "7"))
    with pytest.raises(ValueError, match="frames = 7; the clips have 6 latent frames"):
        Trainer(too_long, begun / "long").run()


# Every loss, and every start ----------------------------------------------------------------------------------------


@pytest.fixture
def begun(run: Path, tmp_path: Path) -> Path:
    """A folder with a recipe's head that has the trained parts as files."""
    (tmp_path / "prompts.txt").write_text("a red circle moving left\na blue square moving up\n")
    files = "".join(f'{name} = "{run / f"{name}.safetensors"}"\n' for name in ("vae", "teacher", "causal"))
    files = files.replace("causal =", "generator =")
    head = WORLD.replace("[world]", f'[files]\n{files}prompts = "{tmp_path / "prompts.txt"}"\n[world]')
    (tmp_path / "head.toml").write_text(head)
    return tmp_path


@pytest.mark.parametrize(
    "settings",
    [
        'loss = "sid"',
        'loss = "gan"\nr1_weight = 1.0\nr2_weight = 0.5\nts_schedule = true\nts_schedule_max = true',
        'loss = "gan"\nrelativistic = false',
        "max_frames = 12\ncheckpointing = true",
        "max_frames = 12\nswitches = 0.8",
        'kv_gradient = "straight-through"\nscore_shift = 8.0',
        'videos = "teacher-forcing"',
        'loss = "gan"\nvideos = "diffusion-forcing"\nts_schedule = true',
    ],
)
def test_every_loss_trains_from_files(begun: Path, settings: str) -> None:
    stage = (
        f'[[stages]]\nkind = "self-forcing"\nsteps = 4\nbatch = 2\nratio = 2\noptimizer = {{ lr = 1e-3 }}\n{settings}\n'
    )
    recipe = write(begun, (begun / "head.toml").read_text() + stage)
    made = Trainer(recipe, begun / "run").run()
    before, after = load_file(Recipe.read(recipe).files.generator or ""), load_file(made)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    changed = [name for name in after if not torch.equal(before[name], after[name])]
    assert len(changed) > 0.9 * len(after)


def test_a_generator_is_trained_to_go_on_from_a_first_frame(begun: Path) -> None:
    head = (begun / "head.toml").read_text().replace("frames = 6", "frames = 7", 1)
    head = head.replace("[rollout]", "[rollout]\nfirst_chunk_frames = 1")
    stage = '[[stages]]\nkind = "self-forcing"\nsteps = 2\nbatch = 2\nratio = 1\ncontext_frames = 1\n'
    made = Trainer(write(begun, head + stage), begun / "run").run()
    assert sf_core.load_model(made).rollout_config == sf_core.RolloutConfig(
        first_chunk_frames=1, window_frames=6, denoising_steps=(1000, 500)
    )


@pytest.mark.parametrize("by", ["diffusion-forcing", "ode"])
def test_the_other_causal_starts_train_in_bfloat16(begun: Path, by: str) -> None:
    stage = f'[[stages]]\nkind = "causal"\nby = "{by}"\nsteps = 30\nbatch = 8\ntrajectories = 8\nsolver_steps = 8\n'
    stage += "optimizer = { lr = 2e-3, betas = [0.9, 0.99], warmup = 5, decay_to = 0.5 }\n"
    head = (begun / "head.toml").read_text().replace('name = "small"', 'name = "small"\ndtype = "bfloat16"')
    Trainer(write(begun, head + stage), begun / "run").run()
    losses = values(begun / "run", "1-causal", "ode_loss" if by == "ode" else "flow_loss")
    assert sum(losses[-8:]) < sum(losses[:8])


@pytest.mark.parametrize("by", ["teacher-forcing", "ode"])
def test_a_causal_start_learns_the_same_with_checkpointing(begun: Path, tmp_path: Path, by: str) -> None:
    stage = f'[[stages]]\nkind = "causal"\nby = "{by}"\nsteps = 3\nbatch = 2\ntrajectories = 4\nsolver_steps = 8\n'
    found = []
    for again in ("false", "true"):
        text = (begun / "head.toml").read_text() + f"{stage}checkpointing = {again}\n"
        found.append(load_file(Trainer(write(begun, text), tmp_path / again).run()))
    assert all(torch.equal(found[1][name], tensor) for name, tensor in found[0].items())


# What is wrong ------------------------------------------------------------------------------------------------------

STAGE = '[[stages]]\nkind = "teacher"\nsteps = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not TOML"),
        ('name = "a"\n' + STAGE.replace("steps", "stpes"), r"stages.0.teacher.stpes: Unexpected .* \(it is 1\)"),
        ('name = "a"\n' + STAGE.replace("teacher", "tutor"), "'tutor' found .* expected tags: 'vae', 'teacher'"),
        ('name = "a"\n' + STAGE.replace("1", "0"), "stages.0.teacher.steps: .* greater than or equal to 1"),
        ('name = "a"\nframes = 10\n' + STAGE, "10 latent frames do not cut .* the nearest counts that do: 9 or 12"),
        ('name = "a"\n[rollout]\nwindow = 3\n' + STAGE, "unknown rollout settings: window; known are"),
        ('name = "a"\nstages = []\n', "there is nothing to do"),
        (
            'name = "a"\n[[stages]]\nkind = "self-forcing"\nsteps = 1\nswitches = 0.5\n',
            "switches needs max_frames, which leaves room",
        ),
    ],
)
def test_a_recipe_that_cannot_be_says_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Recipe.read(write(tmp_path, text))
    assert "recipe.toml" in str(error.value)


def test_a_recipe_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"r\.toml is not TOML"):
        Recipe.read(tmp_path / "r.toml")


def test_an_unknown_recipe_names_those_that_come_along() -> None:
    with pytest.raises(FileNotFoundError, match=r"no recipe big-world: .* tiny-world, tiny-world-framewise, wan-1"):
        Recipe.read("big-world")


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_the_recipes_that_come_along_are_read(name: str) -> None:
    recipe = Recipe.read(name)
    assert recipe.name == name
    assert recipe.smoke().steps <= 6 * len(recipe.stages)


def test_a_smoke_run_begins_anew_over_another_but_never_over_a_training(run: Path, tmp_path: Path) -> None:
    recipe = Recipe.read(write(tmp_path, WORLD + VAE)).smoke()
    assert Trainer(recipe, tmp_path / "run").run().exists()
    Trainer(recipe, tmp_path / "run", over=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="holds a run already"):
        Trainer(recipe, run, over=True)
    assert (run / "model.safetensors").exists()


def test_missing_files_are_named_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"do not exist: generator = models/ode_init.pt; teacher = .*; prompts = prompts.txt"
    ):
        Trainer("wan-1.3b-dmd", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (CAUSAL, "there is no causal and no teacher to begin with: name its file under \\[files\\]"),
        (TEACHER, "there is no vae to begin with"),
        (VAE.replace("dim = 4", "decoder_only = true"), "there is no vae to begin with"),
        (VAE.replace("ema = 0.0", "ema = 0.9"), "ema is set for the vae, which keeps no average"),
    ],
)
def test_a_stage_without_what_it_needs_says_so(tmp_path: Path, stage: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(write(tmp_path, WORLD + stage), tmp_path / "run").run()


def test_weights_stay_as_they_were_when_a_gradient_is_not_finite(tmp_path: Path) -> None:
    from sf_core.training.engine.learner import Learner
    from sf_core.training.losses.loss import Loss
    from sf_core.training.stage_settings import Optimizer

    network = torch.nn.Linear(2, 2)
    before = network.weight.detach().clone()
    learner = Learner("net", network, Optimizer(lr=0.1), 10)
    with pytest.raises(FloatingPointError, match="gradient of net is nan at its update 1"):
        learner.update([lambda: Loss(network(torch.ones(1, 2)).sum() * float("nan"))])
    assert torch.equal(network.weight, before)
    assert network.weight.grad is None
    assert learner.updates == 0
