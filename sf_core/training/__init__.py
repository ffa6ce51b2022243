"""Training with Self Forcing: the rollout, the losses on whole videos, the trainer."""

from .discriminator import Discriminator
from .dmd import DMD
from .flow_matching import DiffusionForcing, FlowMatching, TeacherForcing
from .gan import GAN
from .loss import Loss
from .ode_regression import ODERegression, ode_trajectory
from .rollout import Rollout, rollout
from .scores import NoiseLevels
from .sid import SiD
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
