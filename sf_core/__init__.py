"""Self Forcing in plain torch: streaming autoregressive video from a causal Wan 2.1 model."""

from ._version import __version__
from .cancellation import Cancellation, Cancelled
from .config import RolloutConfig
from .files.checkpoint import load_model
from .files.published_models import preset, presets
from .model.wan import CausalWan
from .noise import NoiseSource, SeededNoise
from .session.commands import CommandQueue, Pause, ReRoll, Resume, Stop
from .session.published_noise import PublishedNoise
from .session.session import Session
from .session.stream_host import StreamEvent, StreamHost
from .session.streaming import stream
from .session.timeline import Row, Timeline, format_rows, parse_rows
from .sources.clip import ClipFrames, PictureClip
from .sources.video_source import VideoSource
from .vae.loading import load_vae
from .vae.taehv import load_taehv

__all__ = [
    "Cancellation",
    "Cancelled",
    "CausalWan",
    "ClipFrames",
    "CommandQueue",
    "NoiseSource",
    "Pause",
    "PictureClip",
    "PublishedNoise",
    "ReRoll",
    "Resume",
    "RolloutConfig",
    "Row",
    "SeededNoise",
    "Session",
    "Stop",
    "StreamEvent",
    "StreamHost",
    "Timeline",
    "VideoSource",
    "__version__",
    "format_rows",
    "load_model",
    "load_taehv",
    "load_vae",
    "parse_rows",
    "preset",
    "presets",
    "stream",
]
