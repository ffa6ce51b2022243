"""Study of exposure bias: the quality of rollouts beyond the training length, by the method of training.

Teacher forcing, diffusion forcing and Self Forcing, all with DMD: the same causal start, teacher, first critic, prompts
and number of updates, several seeds each. For comparison, the causal start itself ("untrained") and the teacher, which
makes videos of the training length only. `benchmarks.tiny_world.scorer` scores all.

It needs a finished ``make train`` (--base). It may be killed at any time; the same command continues it. The report
goes to docs/exposure-bias.md and docs/exposure-bias/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sf_core import load_model, load_vae
from sf_core.files.atomic_write import atomic_write
from sf_core.model.wan import CausalWan
from sf_core.tiny import TinyText
from sf_core.tiny.world import prompts
from sf_core.training import ode_trajectory
from sf_core.training.recipe import Files, Recipe
from sf_core.training.stage_settings import SelfForcingStage, Videos
from sf_core.training.trainer import Trainer
from sf_core.vae.wan_vae import WanVAE

from .exposure_bias_report import LENGTHS, TEACHER, UNTRAINED, write_report
from .tiny_world.evaluate import frames_of, make_videos
from .tiny_world.observe import Observation, observe
from .tiny_world.scorer import judge, summarize

METHODS: dict[str, Videos] = {  # the videos that the generator is trained on
    "teacher forcing + DMD": "teacher-forcing",
    "diffusion forcing + DMD": "diffusion-forcing",
    "Self Forcing + DMD": "rollouts",
}
PROMPT_SEED = 2506_08009
SHOWN = 4  # videos of each model on the contact sheets
TEACHER_STEPS, TEACHER_SHIFT, TEACHER_GUIDANCE = 24, 5.0, 1.0


@dataclass(frozen=True)
class Study:
    """The settings of a study.

    Args:
        base: Folder of a finished training.
        out: Folder of the study.
        seeds: Seeds of each method.
        prompts: Videos of each model.
        steps: Updates of the critic.
        jobs: Models that run at the same time.
        recipe: Of the training in ``base``.
    """

    base: Path
    out: Path
    seeds: int
    prompts: int
    steps: int
    jobs: int
    recipe: Recipe

    @property
    def captions(self) -> list[str]:
        """The prompts of the videos."""
        return prompts(self.prompts, PROMPT_SEED)

    @property
    def models(self) -> list[tuple[str, int]]:
        """All models: what, seed."""
        return [(TEACHER, 0), (UNTRAINED, 0), *((method, seed) for seed in range(self.seeds) for method in METHODS)]

    def folder(self, what: str, seed: int) -> Path:
        """Return the folder of a model."""
        return self.out / f"{METHODS.get(what, what.split()[0])}-{seed}"

    def result(self, what: str, seed: int) -> Path:
        """Return the file of a model's scores."""
        return self.folder(what, seed) / "scores.json"

    def text(self) -> TinyText:
        """Load the text encoder."""
        return TinyText(self.base / "text" / "text.json", self.base / "text" / "text.safetensors")


# One model ----------------------------------------------------------------------------------------------------------


def run_one(study: Study, what: str, seed: int) -> None:
    """Train a model if its method needs it, sample its videos, and score them."""
    torch.set_num_threads(1)
    folder = study.folder(what, seed)
    folder.mkdir(parents=True, exist_ok=True)
    if what in METHODS:
        model_file = _train(study, what, seed)
    else:
        model_file = study.base / ("teacher.safetensors" if what == TEACHER else "causal.safetensors")
    print(f"{what}, seed {seed}: making and scoring {study.prompts} videos", flush=True)
    model, vae, text = load_model(model_file), load_vae(study.base / "vae.safetensors"), study.text()
    length, captions = study.recipe.frames, study.captions
    lengths = LENGTHS[:1] if what == TEACHER else LENGTHS
    if what == TEACHER:
        videos = _teacher_videos(study, model, vae)
    else:
        videos = make_videos(model, vae, text.encode, captions, lengths[-1] * length, seed=seed)
    seen: list[Observation] = []
    for number, frames in enumerate(videos):
        seen.append(observe(frames))
        if number < SHOWN:
            torch.save(_sheet_frames(frames, length, lengths[-1]), folder / f"shown-{number}.pt")
    scores = {times: _scores(seen, captions, length, times) for times in lengths}
    facts = {"what": what, "seed": seed, "prompts": study.prompts, "steps": study.steps, "scores": scores}
    with atomic_write(study.result(what, seed)) as part:
        part.write_text(json.dumps(facts, indent=1))


def _train(study: Study, method: str, seed: int) -> Path:
    """Train a generator, and return its file."""
    recipe, base, folder = study.recipe, study.base, study.folder(method, seed)
    stage = next(stage for stage in recipe.stages if isinstance(stage, SelfForcingStage))
    stage = replace(stage, videos=METHODS[method], steps=study.steps)
    files = Files(
        generator=base / "causal.safetensors", teacher=base / "teacher.safetensors", vae=base / "vae.safetensors"
    )
    samples = replace(recipe.samples, every=10**9)
    recipe = replace(recipe, name=folder.name, seed=seed + 1, files=files, stages=(stage,), samples=samples)
    if not (folder / "latents").exists():
        (folder / "latents").symlink_to((base / "latents").resolve())
    resume = (folder / "state.safetensors").exists()
    began = time.process_time()
    trained = Trainer(recipe, folder, resume).run()
    if not resume:  # the cost of a run that was killed in between is unknown
        (folder / "cpu_seconds.json").write_text(json.dumps(time.process_time() - began))
    return trained


@torch.no_grad()
def _teacher_videos(study: Study, teacher: CausalWan, vae: WanVAE) -> Iterator[Tensor]:
    assert teacher.latent_size is not None
    text, recipe = study.text(), study.recipe
    for number, caption in enumerate(study.captions):
        shape = (1, teacher.arch.in_dim, recipe.frames, *teacher.latent_size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(number))
        inputs = text.encode(caption), text.encode(""), noise, recipe.rollout_config
        yield vae.decode(ode_trajectory(teacher, *inputs, TEACHER_STEPS, TEACHER_SHIFT, TEACHER_GUIDANCE)[:, -1])[0]


def _scores(seen: Sequence[Observation], captions: Sequence[str], length: int, times: int) -> dict[str, float]:
    """Score the first ``times`` training lengths, and the last of these alone (``last_...``)."""
    end = frames_of(times * length)
    begin = frames_of((times - 1) * length) if times > 1 else 0
    pairs = list(zip(seen, captions, strict=True))
    whole = summarize([judge(clip, caption, 0, end) for clip, caption in pairs])
    last = summarize([judge(clip, caption, begin, end) for clip, caption in pairs])
    return whole | {f"last_{name}": value for name, value in last.items()}


def _sheet_frames(frames: Tensor, length: int, times: int) -> Tensor:
    """Select the middle and the end of each training length: [2 * times, H, W, 3]."""
    span = 4 * length
    return frames[[min(span * half // 2, len(frames)) - 1 for half in range(1, 2 * times + 1)]].clone()


# All of them --------------------------------------------------------------------------------------------------------


def run_all(study: Study, arguments: Sequence[str]) -> None:
    """Run the models that have no result, each in its own process."""

    def one(model: tuple[str, int]) -> None:
        what, seed = model
        if not study.result(what, seed).exists():
            command = [sys.executable, "-m", "benchmarks.exposure_bias", *arguments, "--only", what, str(seed)]
            subprocess.run(command, check=True)

    with ThreadPoolExecutor(study.jobs) as pool:
        list(pool.map(one, study.models))


def main() -> None:
    """Run the study, or one model of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path("runs/tiny-world"), help="a finished training (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/exposure-bias"), help="folder of the study (%(default)s)"
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the report (%(default)s)")
    parser.add_argument("--recipe", default="tiny-world", help="recipe of that training (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each method (%(default)s)")
    parser.add_argument("--prompts", type=int, default=100, help="videos of each model (%(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="updates of the critic (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="models at the same time, one thread each (%(default)s)")
    parser.add_argument("--only", nargs=2, metavar=("WHAT", "SEED"), help="one model, and no report")
    args = parser.parse_args()
    if min(args.seeds, args.prompts, args.steps, args.jobs) < 1:
        parser.error("--seeds, --prompts, --steps and --jobs are numbers from 1 on")
    recipe = Recipe.read(args.recipe)
    for name in ("vae", "teacher", "causal"):
        if not (args.base / f"{name}.safetensors").exists():
            parser.error(f"{args.base} has no {name}.safetensors: run `make train` first, or name another --base")
    study = Study(args.base, args.out, args.seeds, args.prompts, args.steps, args.jobs, recipe)
    if args.only:
        run_one(study, args.only[0], int(args.only[1]))
        return
    run_all(study, sys.argv[1:])
    write_report(study.out, args.docs, [study.result(what, seed) for what, seed in study.models], study.captions)


if __name__ == "__main__":
    main()
