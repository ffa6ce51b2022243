"""Recipes: a whole training as one typed TOML file.

`Recipe.read` takes a path, or the name of a recipe in ``sf_core/training/recipes``. The stages have a module of their
own, `stage_settings`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ..config import RolloutConfig
from ..rollout_rules import check_trainable
from .stage_settings import Count, Natural, Positive, Settings, Stage

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class NewModel(Settings):
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
class AdapterSettings(Settings):
    """Training of low-rank adapters over the teacher's weights, in place of whole networks.

    The weights are in memory once, and the results are LoRA files.

    Attributes:
        rank: Rank of the adapters.
        alpha: The adapters' output is multiplied by ``alpha / rank``.
    """

    rank: Count = 64
    alpha: Positive = 64.0


@dataclass(frozen=True, kw_only=True)
class WorldData(Settings):
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
class Files(Settings):
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
class Samples(Settings):
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
class Recipe(Settings):
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
        check_trainable(self.rollout_config)
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
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
