"""Custom socket types and their values. Values are immutable: the executor hands out the same object again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from comfy_api.v0_0_2 import io

from ...sf_core.config import RolloutConfig
from ...sf_core.session.session import Session

ConfigWire = io.Custom("SF_CONFIG")  # carries a RolloutConfig, or SettingsToFit
SessionWire = io.Custom("SF_SESSION")  # carries a GraphSession
SourceWire = io.Custom("SF_SOURCE")  # carries a GraphSource
TimelineWire = io.Custom("SF_TIMELINE")  # carries a Timeline of sf_core

TIMINGS_KEPT = 60


@dataclass(frozen=True)
class SettingsToFit:
    """Rollout settings that a session changes as far as its device needs it.

    Attributes:
        config: The settings that are wished for.
        real_time: Whether a video shall also be made as fast as it is shown.
    """

    config: RolloutConfig
    real_time: bool = False


@dataclass(frozen=True)
class ChunkTiming:
    """Seconds of each stage of a chunk. how: as `Session.how`."""

    chunk: int
    cache: float
    sample: float
    decode: float
    how: str


@dataclass(frozen=True, eq=False)
class GraphSession:
    """A session on a wire, with the part of it that has been decoded.

    Attributes:
        core: The session.
        decoded: Number of latent frames that have been decoded; the next decoder begins there.
        timings: Of the newest chunks.
    """

    core: Session
    decoded: int = 0
    timings: tuple[ChunkTiming, ...] = ()

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a session on a wire is tied to its model; keep it with Save Session, which writes what it is")

    def grown(self, core: Session, timings: tuple[ChunkTiming, ...] = (), decoded: int | None = None) -> GraphSession:
        """Return the value for a longer session."""
        newest = (*self.timings, *timings)[-TIMINGS_KEPT:]
        return replace(self, core=core, decoded=self.decoded if decoded is None else decoded, timings=newest)

    def edited(self, core: Session) -> GraphSession:
        """Return the value for a session that may have become shorter."""
        return replace(self, core=core, decoded=min(self.decoded, core.frames))
