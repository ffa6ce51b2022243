"""Self Forcing in plain torch: streaming autoregressive video from a causal Wan 2.1 model."""

from ._version import __version__
from .checkpoint import load_model
from .config import RolloutConfig
from .noise import NoiseSource, SeededNoise
from .session import Session
from .stream import stream
from .taehv import load_taehv
from .vae import load_vae
from .wan import CausalWan

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
