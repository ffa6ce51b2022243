"""The published models that this core can run, and how each is meant to be rolled out.

All of them are a Wan 2.1 transformer with the same names and shapes, so that weights alone do not tell which one a
file holds: what can be known comes from the file's metadata, its groups and, as a hint, its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..config import RolloutConfig


@dataclass(frozen=True)
class Member:
    """One published model. file: a pattern of the names that its files go by, the folder's included."""

    name: str
    file: str
    config: RolloutConfig | None
    remark: str = ""


_FIRST = (1000, 750, 500, 250)  # Causal Forcing++ makes its first frame with four steps

# The first whose pattern is found counts. Settings: each one's own inference configuration.
FAMILY = (
    Member(
        "Rolling Forcing",
        r"rolling.?forcing|chunkwise/longvideo",
        RolloutConfig(
            window_frames=24, sink_frames=3, sink_position="clamped", denoising_steps=(1000, 800, 600, 400, 200)
        ),
        "it is made for denoising five chunks at a time, each at its own noise level; here, chunk after chunk",
    ),
    Member(
        "Causal Forcing++, frame-wise, 1 step",
        r"frame.?wise.?1.?step",
        RolloutConfig(chunk_frames=1, denoising_steps=(1000,), first_chunk_steps=_FIRST),
    ),
    Member(
        "Causal Forcing++, frame-wise, 2 steps",
        r"frame.?wise.?2.?step",
        RolloutConfig(chunk_frames=1, denoising_steps=(1000, 500), first_chunk_steps=_FIRST),
    ),
    Member(
        "Causal Forcing, frame-wise",
        r"frame.?wise/causal.?forcing|causal.?forcing.*frame.?wise",
        RolloutConfig(chunk_frames=1),
    ),
    Member("Causal Forcing, chunk-wise", r"causal.?forcing", RolloutConfig(), "the frame-wise one has chunk_frames=1"),
    Member(
        "CausVid",
        r"causvid",
        RolloutConfig(denoising_steps=(1000, 757, 522), warp_steps=False, shift=8.0),
    ),
    Member("LongLive", r"longlive", RolloutConfig(window_frames=12, sink_frames=3), "base and LoRA belong together"),
    Member(
        "Reward Forcing",
        r"reward.?forcing",
        RolloutConfig(window_frames=9, sink_frames=3),
        "its sink is an average of what the window has lost; here, the first frames",
    ),
    Member(
        "Krea Realtime 14B",
        r"krea",
        RolloutConfig(window_frames=6, denoising_steps=(1000, 937, 833, 625), warp_steps=False),
        "it encodes its window anew for every chunk; here, the cache stays",
    ),
    Member("an initialisation (ODE pairs)", r"ode.?init|causal.?ode", None, "it is meant to be trained, not to be run"),
    Member(
        "Self Forcing",
        r"self.?forcing",
        RolloutConfig(),
        "trained on 21 frames; shift=8 is what its web demo runs with",
    ),
    Member(
        "Wan 2.1 itself",
        r"wan_?2[._]?1.?t2v",
        None,
        "it is not distilled: a few denoising steps from it give no usable video",
    ),
)


def member_by_file(path: Path) -> Member | None:
    """By the name of the file and of its folder: a hint, since anyone may name a file."""
    name = f"{path.absolute().parent.name}/{path.name}".lower()
    return next((member for member in FAMILY if re.search(member.file, name)), None)


def member_called(name: str) -> Member:
    """By its name, or by a name that a file of it could have. Raises ValueError listing those with settings."""
    found = next((m for m in FAMILY if m.name.lower() == name.lower() or re.search(m.file, name.lower())), None)
    if found is None or found.config is None:
        known = "; ".join(member.name for member in FAMILY if member.config)
        raise ValueError(f"no rollout settings are known for {name!r}; known are: {known}")
    return found


def settings_in_words(config: RolloutConfig) -> str:
    """The settings that make a difference between models, and all that are not the default, as in Python."""
    always = ("chunk_frames", "window_frames", "sink_frames", "denoising_steps", "shift")
    said = {k: v for k, v in vars(config).items() if k in always or v != getattr(RolloutConfig(), k)}
    return ", ".join(f"{name}={value!r}" for name, value in said.items())
