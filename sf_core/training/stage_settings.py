"""The stages of a recipe: the tables ``[[stages]]``, and the optimizers in them.

Lengths in frames are latent frames unless stated otherwise. Learning rates are those after the warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Videos = Literal["rollouts", "teacher-forcing", "diffusion-forcing"]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings:
    """A table of a recipe. An unknown key is an error."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Optimizer(Settings):
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
class _Stage(Settings):
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
        mse: Weight of the squared error; the L1 error has 1. A large one makes edges count more.
        clipped: A pixel beyond the range of a picture is no error where the picture is at that end of it.
        decoder_only: Freeze the encoder and the scale of the latents, so that models of these latents stay valid.
    """

    kind: Literal["vae"]
    frames: Count = 17
    dim: Count = 8
    kl: NotNegative = 1e-3
    mse: NotNegative = 2.0
    clipped: bool = False
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
        switches: Share of rollouts whose prompt changes. These are longer than ``frames``, by whole chunks, up to
            ``max_frames``; the frames before the judged ones have another prompt. All others have ``frames``.
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
    switches: Share = 0.0
    context_frames: Natural = 0
    checkpointing: bool = False
    kv_gradient: Literal["detached", "straight-through"] = "detached"

    def __post_init__(self) -> None:
        if self.videos != "rollouts" and (self.max_frames or self.context_frames):
            raise ValueError(
                f'max_frames and context_frames are for rollouts; leave them out with videos = "{self.videos}"'
            )
        if self.switches and (self.max_frames is None or self.context_frames or self.loss == "gan"):
            raise ValueError(
                "switches needs max_frames, which leaves room before the judged frames, and no context_frames; its "
                "prompts have no videos, so the loss cannot be a gan"
            )


Stage = Annotated[VAEStage | TeacherStage | CausalStage | SelfForcingStage, Field(discriminator="kind")]
