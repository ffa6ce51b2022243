"""The published models that this core can run, with the rollout settings of each.

All of them are a Wan 2.1 transformer with the same names and shapes, so weights alone do not identify a model. The
file's metadata, its groups and, as a hint, its name do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..config import RolloutConfig


@dataclass(frozen=True)
class PublishedModel:
    """A published model.

    Args:
        name: As its authors call it.
        file: Regular expression that matches the names of its files, the folder's name included.
        config: Settings of its own inference code; None if it is not meant for a rollout.
        remark: What a user should know before using it.
    """

    name: str
    file: str
    config: RolloutConfig | None
    remark: str = ""


_FIRST = (1000, 750, 500, 250)  # Causal Forcing++ makes its first frame with four steps

# The first with a matching pattern counts.
PUBLISHED_MODELS = (
    PublishedModel(
        "Rolling Forcing",
        r"rolling.?forcing|chunkwise/longvideo",
        RolloutConfig(
            window_frames=24, sink_frames=3, sink_position="clamped", denoising_steps=(1000, 800, 600, 400, 200)
        ),
        "it is made for denoising five chunks at a time, each at its own noise level; here, chunk after chunk",
    ),
    PublishedModel(
        "Causal Forcing++, frame-wise, 1 step",
        r"frame.?wise.?1.?step",
        RolloutConfig(chunk_frames=1, denoising_steps=(1000,), first_chunk_steps=_FIRST),
    ),
    PublishedModel(
        "Causal Forcing++, frame-wise, 2 steps",
        r"frame.?wise.?2.?step",
        RolloutConfig(chunk_frames=1, denoising_steps=(1000, 500), first_chunk_steps=_FIRST),
    ),
    PublishedModel(
        "Causal Forcing, frame-wise",
        r"frame.?wise/causal.?forcing|causal.?forcing.*frame.?wise",
        RolloutConfig(chunk_frames=1),
    ),
    PublishedModel(
        "Causal Forcing, chunk-wise", r"causal.?forcing", RolloutConfig(), "the frame-wise one has chunk_frames=1"
    ),
    PublishedModel(
        "CausVid",
        r"causvid",
        RolloutConfig(denoising_steps=(1000, 757, 522), warp_steps=False, shift=8.0),
    ),
    PublishedModel(
        "LongLive", r"longlive", RolloutConfig(window_frames=12, sink_frames=3), "base and LoRA belong together"
    ),
    PublishedModel(
        "Reward Forcing",
        r"reward.?forcing",
        RolloutConfig(window_frames=9, sink_frames=3),
        "its sink is an average of what the window has lost; here, the first frames",
    ),
    PublishedModel(
        "Krea Realtime 14B",
        r"krea",
        RolloutConfig(window_frames=6, denoising_steps=(1000, 937, 833, 625), warp_steps=False),
        "it encodes its window anew for every chunk; here, the cache stays",
    ),
    PublishedModel(
        "an initialisation (ODE pairs)", r"ode.?init|causal.?ode", None, "it is meant to be trained, not to be run"
    ),
    PublishedModel(
        "Self Forcing",
        r"self.?forcing",
        RolloutConfig(),
        "trained on 21 frames; shift=8 is what its web demo runs with",
    ),
    PublishedModel(
        "Wan 2.1 itself",
        r"wan_?2[._]?1.?t2v",
        None,
        "it is not distilled: a few denoising steps from it give no usable video",
    ),
    PublishedModel(
        "Wan 2.2 itself",
        r"wan_?2[._]?2",
        None,
        "it is not distilled for streaming, and its 14B is two models for two noise levels: it gives no usable video",
    ),
)


def model_by_file_name(path: Path) -> PublishedModel | None:
    """Guess the model from the names of a file and its folder; only a hint, as files can have any name."""
    name = f"{path.absolute().parent.name}/{path.name}".lower()
    return next((model for model in PUBLISHED_MODELS if re.search(model.file, name)), None)


def remark_on(model: PublishedModel | None) -> str:
    """Return what a user should know of a model before running it; empty if there is nothing to say."""
    if model is None or not model.remark:
        return ""
    return f"{'not for streaming: ' if model.config is None else ''}{model.name}: {model.remark}"


def model_by_name(name: str) -> PublishedModel:
    """Find a model by its name, or by a name that a file of it could have.

    Raises:
        ValueError: No model with rollout settings has that name; the message lists those that have.
    """
    wanted = name.lower()
    model = next((m for m in PUBLISHED_MODELS if m.name.lower() == wanted or re.search(m.file, wanted)), None)
    if model is None or model.config is None:
        names = "; ".join(model.name for model in PUBLISHED_MODELS if model.config)
        raise ValueError(f"no rollout settings are known for {name!r}; known are: {names}")
    return model


def format_settings(config: RolloutConfig) -> str:
    """Format the settings that differ between models, and all that are not the default, in Python's syntax."""
    always = ("chunk_frames", "window_frames", "sink_frames", "denoising_steps", "shift")
    settings = {k: v for k, v in vars(config).items() if k in always or v != getattr(RolloutConfig(), k)}
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
