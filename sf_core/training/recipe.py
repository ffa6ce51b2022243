"""Recipes: a whole training as one typed TOML file.

`Recipe.read` takes a path, or the name of a recipe in ``sf_core/training/recipes``. Lengths in frames are latent frames
unless stated otherwise. Learning rates are those after the warm-up.
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
    """A table of a recipe. An unknown key is an error."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Optimizer(_Settings):
    """The optimizer of one network.

    Attributes:
        name: ``adamw``, or ``muon``: Muon for the matrices inside the blocks and for convolution kernels, scaled to
            steps as large as AdamW's, and AdamW for the rest.
        lr: Learning rate after the warm-up.
        betas: Decay rates of AdamW's moments.
        weight_decay: Decoupled weight decay.
        warmup: Updates until the full learning rate.
        decay_to: Share of the learning rate at the last update; it falls linearly after the warm-up.
        clip: Largest norm of the gradient.
        ema: Decay of the weights' EMA, which is then the stage's result; 0: no EMA.
        ema_start: Updates before the EMA starts; until then it equals the weights.
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
    """Settings that all stages share.

    Attributes:
        steps: Updates of the trained network; of the critic in a Self Forcing stage.
        batch: Videos in a micro-batch.
        accumulate: Gradient accumulation steps: micro-batches per update.
        optimizer: Optimizer of the network that the stage leaves.
    """

    steps: Count
    batch: Count = 1
    accumulate: Count = 1
    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass(frozen=True, kw_only=True)
class VAEStage(_Stage):
    """Training of a small Wan VAE on the frames of the recipe's world; a second such stage continues with it.

    Attributes:
        frames: Video frames of a clip (not latent frames): 1, or 1 + a multiple of the temporal factor.
        dim: Channels of a new VAE at full resolution.
        kl: Weight of the KL divergence of the latents from a standard normal.
        decoder_only: Freeze the encoder.
    """

    kind: Literal["vae"]
    frames: Count = 17
    dim: Count = 8
    kl: NotNegative = 1e-3
    decoder_only: bool = False


@dataclass(frozen=True, kw_only=True)
class TeacherStage(_Stage):
    """Training of a bidirectional model by flow matching; a second such stage continues with it.

    Attributes:
        shift: Shift of the schedule.
        weighted: See `FlowMatching`.
        frames: Latent frames at the beginning of each clip to train on; None: all. Training on short clips first
            teaches far more in the same time.
    """

    kind: Literal["teacher"]
    shift: Positive = 5.0
    weighted: bool = True
    frames: Count | None = None


@dataclass(frozen=True, kw_only=True)
class CausalStage(_Stage):
    """The causal start: turn the teacher into a causal model.

    Attributes:
        by: ``teacher-forcing``, ``diffusion-forcing``, or ``ode``: regression to the ends of the teacher's
            trajectories.
        weighted: See `FlowMatching`; not for ``ode``.
        trajectories: Number of trajectories to solve; for ``ode`` alone, as the next three.
        solver_steps: See `ode_trajectory`.
        solver_shift: See `ode_trajectory`.
        guidance: See `ode_trajectory`.
        checkpointing: Recompute each block in the backward pass.
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
    """Training of the generator on its own rollouts, with a loss on the whole video.

    Attributes:
        loss: ``dmd``, ``sid`` or ``gan``.
        videos: ``rollouts``; or, as a baseline, the generator's predictions of given videos: see `forced_rollout`.
        critic: Optimizer of the critic.
        ratio: Critic updates per generator update; the generator is updated before the first of them.
        guidance: Guidance of the teacher; 3.0 is a scale of 4.0 elsewhere.
        score_shift: See `ScoreDistillation`.
        alpha: See `SiD`.
        relativistic: See `GAN`, also for the next four.
        generator_weight: Weight of the generator's loss.
        discriminator_weight: Weight of the discriminator's loss.
        r1_weight: Weight of R1.
        r2_weight: Weight of R2.
        sigma: ``r1_sigma`` and ``r2_sigma`` of `GAN`.
        ts_schedule: See `NoiseLevels`.
        ts_schedule_max: See `NoiseLevels`.
        max_frames: Longest rollout, in latent frames; the length of each is drawn between the recipe's ``frames`` and
            this. None: always ``frames``.
        context_frames: Given latent frames at the beginning of each rollout; image-to-video: 1.
        checkpointing: Recompute each block in the backward pass.
        kv_gradient: See `rollout`.
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
    """A transformer to train from random weights.

    Its latent channels are those of the VAE, its text width is that of the text encoder.

    Attributes:
        dim: Width.
        ffn_dim: Width of the feed-forward nets.
        layers: Number of blocks.
        heads: Attention heads.
        freq_dim: Width of the timestep's sinusoidal embedding.
    """

    dim: Annotated[int, Field(ge=2)]
    ffn_dim: Count
    layers: Count
    heads: Count
    freq_dim: Annotated[int, Field(ge=2)] = 128


@dataclass(frozen=True, kw_only=True)
class AdapterSettings(_Settings):
    """Training of low-rank adapters over the teacher's weights, in place of whole networks.

    The weights are in memory once, and the results are LoRA files.

    Attributes:
        rank: Rank of the adapters.
        alpha: The adapters' output is multiplied by ``alpha / rank``.
    """

    rank: Count = 64
    alpha: Positive = 64.0


@dataclass(frozen=True, kw_only=True)
class WorldData(_Settings):
    """Synthetic videos, rendered on demand: `sf_core.tiny.world`.

    Attributes:
        size: Height and width in pixels.
        clips: Number of clips.
        seed: Seed of the clips and of the word table. It is not the recipe's seed, so recipes with different seeds
            share their data.
    """

    size: Annotated[int, Field(ge=16)] = 64
    clips: Count = 1280
    seed: Natural = 0


@dataclass(frozen=True, kw_only=True)
class Files(_Settings):
    """Existing files, relative to the working directory.

    Attributes:
        generator: Checkpoint of the transformer that the generator starts from.
        teacher: Checkpoint of the bidirectional transformer.
        critic: Checkpoint of the transformer that the critic starts from.
        vae: VAE, as for `generate`.
        text_encoder: Text encoder, as for `generate`.
        prompts: Text file with one prompt per line.
        videos: Folder of videos, each with its caption in a text file of the same name; for a GAN, the baselines and
            the training of a teacher.
    """

    generator: Path | None = None
    teacher: Path | None = None
    critic: Path | None = None
    vae: Path | None = None
    text_encoder: Path | None = None
    prompts: Path | None = None
    videos: Path | None = None

    def missing(self) -> list[str]:
        """Return ``key = path`` for each path that does not exist."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return [f"{name} = {path}" for name, path in named.items() if path is not None and not path.exists()]


@dataclass(frozen=True, kw_only=True)
class Samples(_Settings):
    """Samples that are written during the training.

    Attributes:
        prompts: Prompts to sample; empty: the first four of the data.
        every: Steps between samples; a stage also writes them at its end.
        long: Length of the rollout for the drift plot, in training lengths.
    """

    prompts: tuple[str, ...] = ()
    every: Count = 200
    long: Count = 4


@dataclass(frozen=True, kw_only=True)
class Recipe(_Settings):
    """A whole training.

    Attributes:
        name: Name of the recipe and of its default folder.
        about: One line for people: what the training makes and needs.
        seed: Seed of everything random but the world.
        device: Torch device.
        dtype: Dtype of the arithmetic; weights and optimizers are float32.
        frames: Training length in latent frames.
        latent_size: (height, width) of latents; None: the latent size of the world's clips.
        fps: Frame rate of the videos.
        negative: Negative prompt of the guidance.
        rollout: Fields of `RolloutConfig`.
        model: Size of a new teacher.
        lora: Train adapters: ``files.generator`` and ``files.critic``, if set, are then LoRA files of them.
        world: Synthetic videos.
        files: Existing files.
        samples: Samples that are written during the training.
        stages: The stages, in order.
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
    lora: AdapterSettings | None = None
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
        """The settings under ``[rollout]``."""
        return RolloutConfig.from_dict(self.rollout)

    @property
    def steps(self) -> int:
        """The number of steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @staticmethod
    def read(source: str | Path) -> Recipe:
        """Read a recipe.

        Args:
            source: TOML file, or the name of a recipe in ``sf_core/training/recipes``.

        Raises:
            ValueError: For a file that is not a valid recipe, naming each wrong key.
            FileNotFoundError: If there is no such file or recipe.
        """
        path = Path(source)
        if not path.exists():
            names = sorted(file.stem for file in RECIPES.glob("*.toml"))
            if str(source) not in names:
                raise FileNotFoundError(f"there is no recipe {source}: give a TOML file, or one of {', '.join(names)}")
            path = RECIPES / f"{source}.toml"
        try:
            return TypeAdapter(Recipe).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error
        except ValidationError as error:
            raise ValueError(f"{path}: {'; '.join(map(_sentence, error.errors()))}") from error

    def smoke(self) -> Recipe:
        """Return a recipe with the same stages, each a few steps on a few videos, to try whether everything runs."""
        stages = tuple(
            replace(stage, steps=min(stage.steps, 6), batch=min(stage.batch, 2), **_SMOKE_CHANGES.get(stage.kind, {}))
            for stage in self.stages
        )
        world = self.world and replace(self.world, clips=min(self.world.clips, 8))
        samples = replace(self.samples, every=6, long=2)
        return replace(self, name=f"{self.name}-smoke", stages=stages, world=world, samples=samples)


_SMOKE_CHANGES: dict[str, dict[str, Any]] = {"causal": {"trajectories": 2, "solver_steps": 8}}


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    value = "" if isinstance(error["input"], dict) else f" (it is {error['input']!r})"
    return f"{key or 'the recipe'}: {error['msg']}{value}"
