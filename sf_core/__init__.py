"""Self Forcing in plain torch: streaming autoregressive video from a causal Wan 2.1 model."""

from ._version import __version__
from .config import RolloutConfig
from .files.checkpoint import load_model
from .model.wan import CausalWan
from .noise import NoiseSource, SeededNoise
from .session.session import Session
from .session.streaming import stream
from .vae.taehv import load_taehv
from .vae.wan_vae import load_vae

__all__ = [
    "CausalWan",
    "NoiseSource",
    "RolloutConfig",
    "SeededNoise",
    "Session",
    "__version__",
    "load_model",
    "load_taehv",
    "load_vae",
    "stream",
]
