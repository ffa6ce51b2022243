"""Self Forcing in plain torch: streaming autoregressive video from a causal Wan 2.1 model."""

from .checkpoint import load_model
from .config import RolloutConfig
from .noise import NoiseSource, SeededNoise
from .session import Session
from .stream import stream
from .taehv import load_taehv
from .vae import load_vae
from .wan import CausalWan

__version__ = "0.1.0"
__all__ = [
    "CausalWan",
    "NoiseSource",
    "RolloutConfig",
    "SeededNoise",
    "Session",
    "load_model",
    "load_taehv",
    "load_vae",
    "stream",
]
