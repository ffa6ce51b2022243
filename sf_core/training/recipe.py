"""What to train, as one typed file: a recipe.

Recipes are TOML. `Recipe.read` takes a path, or the name of one that comes along (``sf_core/training/recipes``).
Lengths in frames are latent frames unless said otherwise; learning rates are those at full strength.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ..config import RolloutConfig

RECIPES = Path(__file__).parent / "recipes"
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Videos = Literal["rollouts", "teacher-forcing", "diffusion-forcing"]
Share = Annotated[float, Field(ge=0, le=1)]


class _Settings:
    """A table of a recipe. What it does not know is an error."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Optimizer(_Settings):
    """How one network learns.

    name: ``adamw``; ``muon``: AdamW too, but Muon for the matrices inside the blocks and for kernels of convolutions,
    scaled to steps as large as AdamW's.
    warmup: steps until the full learning rate. decay_to: what part of it is left at the last step (linearly).
    clip: the largest norm of a gradient. ema: decay of the weights' running average, which is what is kept in the end;
    0: none. ema_start: the step at which the average begins.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 2e-6
    betas: tuple[float, float] = (0.0, 0.999)
    weight_decay: NotNegative = 0.01
    warmup: Natural = 0
    decay_to: Share = 1.0
    clip: Positive = 10.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_start: Natural = 0


@dataclass(frozen=True, kw_only=True)
class _Stage(_Settings):
    """steps: updates of what is trained. batch: videos at a time; accumulate: times that many before an update."""

    steps: Count
    batch: Count = 1
    accumulate: Count = 1
    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass(frozen=True, kw_only=True)
class VAEStage(_Stage):
    """A small Wan VAE on the world's own frames; a further stage goes on with it.

    frames: of a clip (not latent ones): 1, or groups of the temporal factor after the first. dim: its width.
    kl: weight of the latents' distance from a standard normal. decoder_only: the encoder stays as it is.
    """

    kind: Literal["vae"]
    frames: Count = 17
    dim: Count = 8
    kl: NotNegative = 1e-3
    decoder_only: bool = False


@dataclass(frozen=True, kw_only=True)
class TeacherStage(_Stage):
    """A bidirectional model by flow matching on latents; a further stage goes on with it.

    shift: of the schedule. weighted: see `FlowMatching`. frames: of the beginning of each clip that are learnt from,
    None: all; short clips first teach far more in the same time.
    """

    kind: Literal["teacher"]
    shift: Positive = 5.0
    weighted: bool = True
    frames: Count | None = None


@dataclass(frozen=True, kw_only=True)
class CausalStage(_Stage):
    """The causal start: from the teacher's weights, by teacher forcing, diffusion forcing, or regression to the ends of
    the teacher's trajectories.

    weighted: see `FlowMatching`. checkpointing: compute each block again in backward.
    trajectories, solver_steps, solver_shift, guidance: of ``ode`` alone: how many are made, and how (see
    `ode_trajectory`).
    """

    kind: Literal["causal"]
    by: Literal["teacher-forcing", "diffusion-forcing", "ode"] = "teacher-forcing"
    weighted: bool = True
    trajectories: Count = 1024
    solver_steps: Count = 48
    solver_shift: Positive = 8.0
    guidance: NotNegative = 5.0
    checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class SelfForcingStage(_Stage):
    """The generator on its own rollouts, under a loss on the whole video.

    critic: its optimizer. ratio: critic updates a generator update; the generator's is before the first of them.
    videos: what the generator is judged on: its own rollouts, or, for comparison, its predictions of given videos (see
    `forced_rollout`).
    guidance: of the teacher; 3.0 is what others call a scale of 4.0. score_shift: as in `ScoreDistillation`.
    alpha: of SiD. relativistic, generator_weight, discriminator_weight, r1_weight, r2_weight, sigma: of the GAN.
    ts_schedule, ts_schedule_max: see `NoiseLevels`. max_frames: rollouts are drawn between ``frames`` of the recipe and
    this many. context_frames: they begin with as many given latents (image-to-video: 1). checkpointing: compute each
    block again in backward. kv_gradient: see `rollout`.
    """

    kind: Literal["self-forcing"]
    loss: Literal["dmd", "sid", "gan"] = "dmd"
    videos: Videos = "rollouts"
    critic: Optimizer = field(default_factory=lambda: Optimizer(lr=4e-7))
    ratio: Count = 5
    guidance: NotNegative = 3.0
    score_shift: Positive = 8.0
    alpha: float = 1.0
    relativistic: bool = True
    generator_weight: Positive = 1e-2
    discriminator_weight: Positive = 1e-2
    r1_weight: NotNegative = 0.0
    r2_weight: NotNegative = 0.0
    sigma: Positive = 0.01
    ts_schedule: bool = False
    ts_schedule_max: bool = False
    max_frames: int | None = None
    context_frames: Natural = 0
    checkpointing: bool = False
    kv_gradient: Literal["detached", "straight-through"] = "detached"

    def __post_init__(self) -> None:
        if self.videos != "rollouts" and (self.max_frames or self.context_frames):
            raise ValueError(
                f'max_frames and context_frames are for rollouts; leave them out with videos = "{self.videos}"'
            )


Stage = Annotated[VAEStage | TeacherStage | CausalStage | SelfForcingStage, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class NewModel(_Settings):
    """A transformer to be trained from nothing; latent channels and text width are the VAE's and the text's."""

    dim: Annotated[int, Field(ge=2)]
    ffn_dim: Count
    layers: Count
    heads: Count
    freq_dim: Annotated[int, Field(ge=2)] = 128


@dataclass(frozen=True, kw_only=True)
class LowRank(_Settings):
    """All networks but the teacher are the teacher's weights with low-rank adapters, which alone are trained.

    So the weights are in memory once, and results are LoRA files. rank: of the adapters. alpha: they count
    ``alpha / rank`` times.
    """

    rank: Count = 64
    alpha: Positive = 64.0


@dataclass(frozen=True, kw_only=True)
class WorldData(_Settings):
    """Videos that are drawn as they are needed: `sf_core.tiny.world`.

    size: pixels. clips: how many are encoded. seed: of the clips and of the table of words, whatever the recipe's, so
    that trainings which differ in that alone share their data.
    """

    size: Annotated[int, Field(ge=16)] = 64
    clips: Count = 1280
    seed: Natural = 0


@dataclass(frozen=True, kw_only=True)
class Files(_Settings):
    """What is there already, relative to the folder that training is started in.

    generator, teacher, critic: transformers. vae, text_encoder: as for `generate`. prompts: a text file, one a line.
    videos: a folder, a caption in a text file beside each (for a GAN, the baselines, and training a teacher).
    """

    generator: Path | None = None
    teacher: Path | None = None
    critic: Path | None = None
    vae: Path | None = None
    text_encoder: Path | None = None
    prompts: Path | None = None
    videos: Path | None = None

    def missing(self) -> list[str]:
        """Lines about what is named and not there."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return [f"{name} = {path}" for name, path in named.items() if path is not None and not path.exists()]


@dataclass(frozen=True, kw_only=True)
class Samples(_Settings):
    """What is shown on the way. prompts: none: the first few of the data. every: steps, and at the end of a stage.
    long: the rollout for the drift plot, in training lengths."""

    prompts: tuple[str, ...] = ()
    every: Count = 200
    long: Count = 4


@dataclass(frozen=True, kw_only=True)
class Recipe(_Settings):
    """A whole training.

    about: what it makes and needs, for people. frames: the training length. latent_size: (height, width); of a world,
    what its VAE makes of it. dtype: of the arithmetic; weights and optimizers are float32. negative: the prompt that
    guidance leads away from. rollout: `RolloutConfig`. fps: of the videos. lora: see `LowRank`; then files.generator
    and files.critic, if they are named, are such LoRA files.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    about: str = ""
    seed: Natural = 0
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    frames: Count = 21
    latent_size: tuple[int, int] | None = None
    fps: Positive = 16
    negative: str = ""
    rollout: dict[str, Any] = field(default_factory=dict)
    model: NewModel | None = None
    lora: LowRank | None = None
    world: WorldData | None = None
    files: Files = field(default_factory=Files)
    samples: Samples = field(default_factory=Samples)
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("there is nothing to do: a recipe has at least one [[stages]]")
        if self.lora is not None and any(getattr(stage, "loss", "") == "gan" for stage in self.stages):
            raise ValueError('[lora] is for loss = "dmd" or "sid": a gan trains a whole discriminator')
        self.rollout_config.check_frames(self.frames)

    @property
    def rollout_config(self) -> RolloutConfig:
        return RolloutConfig.from_dict(self.rollout)

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    @staticmethod
    def read(source: str | Path) -> Recipe:
        """From a TOML file or by name. Raises ValueError saying what in it cannot be, FileNotFoundError."""
        path = Path(source)
        if not path.exists():
            known = sorted(found.stem for found in RECIPES.glob("*.toml"))
            if str(source) not in known:
                raise FileNotFoundError(f"there is no recipe {source}: give a TOML file, or one of {', '.join(known)}")
            path = RECIPES / f"{source}.toml"
        try:
            return TypeAdapter(Recipe).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error
        except ValidationError as error:
            raise ValueError(f"{path}: {'; '.join(map(_sentence, error.errors()))}") from error

    def smoke(self) -> Recipe:
        """The same stages, each for a few steps of a few videos: does everything run?"""
        stages = tuple(
            replace(stage, steps=min(stage.steps, 6), batch=min(stage.batch, 2), **_FEW.get(stage.kind, {}))
            for stage in self.stages
        )
        world = self.world and replace(self.world, clips=min(self.world.clips, 8))
        samples = replace(self.samples, every=6, long=2)
        return replace(self, name=f"{self.name}-smoke", stages=stages, world=world, samples=samples)


_FEW: dict[str, dict[str, Any]] = {"causal": {"trajectories": 2, "solver_steps": 8}}


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    given = "" if isinstance(error["input"], dict) else f" (it is {error['input']!r})"
    return f"{where or 'the recipe'}: {error['msg']}{given}"
