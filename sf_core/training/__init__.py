"""Training with Self Forcing: the rollout, the losses on whole videos, the trainer.

`Trainer` and recipes need pydantic (the extra ``train``). The rollout and the losses need only torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .losses.discriminator import Discriminator
from .losses.dmd import DMD
from .losses.flow_matching import DiffusionForcing, FlowMatching, TeacherForcing
from .losses.gan import GAN
from .losses.loss import Loss
from .losses.ode_regression import ODERegression, ode_trajectory
from .losses.score_distillation import NoiseLevels
from .losses.sid import SiD
from .rollouts import Rollout, rollout

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = [
    "DMD",
    "GAN",
    "DiffusionForcing",
    "Discriminator",
    "FlowMatching",
    "Loss",
    "NoiseLevels",
    "ODERegression",
    "Rollout",
    "SiD",
    "TeacherForcing",
    "Trainer",
    "ode_trajectory",
    "rollout",
]


def __getattr__(name: str) -> Any:
    """Import `Trainer` when it is first used."""
    if name == "Trainer":
        from .trainer import Trainer

        return Trainer
    raise AttributeError(f"module {__name__} has no attribute {name}")
