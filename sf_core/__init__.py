"""Self Forcing in plain torch: streaming autoregressive video from a causal Wan 2.1 model."""

from sf_core.checkpoint import load_model
from sf_core.config import RolloutConfig
from sf_core.noise import NoiseSource, SeededNoise
from sf_core.session import Session
from sf_core.stream import stream
from sf_core.taehv import load_taehv
from sf_core.vae import load_vae
from sf_core.wan import CausalWan

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
