"""What travels on the pack's own wires. All of it is immutable: the executor hands out the same object again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from comfy_api.v0_0_2 import io

from ...sf_core.session.session import Session

ConfigWire = io.Custom("SF_CONFIG")  # carries a RolloutConfig
SessionWire = io.Custom("SF_SESSION")  # carries a GraphSession
TimelineWire = io.Custom("SF_TIMELINE")  # carries a Timeline of sf_core

TIMINGS_KEPT = 60


@dataclass(frozen=True)
class ChunkTiming:
    """Seconds that a chunk took. how: as `Session.how`."""

    chunk: int
    cache: float
    sample: float
    decode: float
    how: str


@dataclass(frozen=True, eq=False)
class GraphSession:
    """A session of `sf_core`, and how much of it has become frames.

    decoded: latent frames whose frames were handed out; the next decoder begins there.
    """

    core: Session
    decoded: int = 0
    timings: tuple[ChunkTiming, ...] = ()

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a session on a wire is tied to its model; keep it with Save Session, which writes what it is")

    def grown(self, core: Session, timings: tuple[ChunkTiming, ...] = (), decoded: int | None = None) -> GraphSession:
        kept = (*self.timings, *timings)[-TIMINGS_KEPT:]
        return replace(self, core=core, decoded=self.decoded if decoded is None else decoded, timings=kept)

    def edited(self, core: Session) -> GraphSession:
        """After a change that may have taken frames away."""
        return replace(self, core=core, decoded=min(self.decoded, core.frames))
