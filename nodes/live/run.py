"""A run of sampling: ready weights, the journal, progress, and what is kept when it is broken off."""

from __future__ import annotations

import queue
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...sf_core.byte_units import format_bytes
from ...sf_core.cancellation import Cancellation
from ...sf_core.session.commands import Command, Pause, Resume, Stop
from ...sf_core.session.session import Progress, Session
from ...sf_core.session.streaming import Decoder, StreamEvent, StreamHost
from ..adapters import host
from ..adapters.memory_report import what_would_fit
from ..adapters.model import comfy_model
from ..adapters.wire_types import TIMINGS_KEPT, ChunkTiming, GraphSession
from . import chunk_cache
from .steering import Steering
from .view import LiveView

_runs: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
_times_steered = 0


def run_of(node_id: str, user: str) -> Run | None:
    """The run that is at work on a node, if it is ``user``'s."""
    run = _runs.get(node_id)
    return run if run is not None and run.user == user else None


def live_runs(user: str) -> list[Run]:
    return [run for run in list(_runs.values()) if run.user == user]


def times_steered() -> int:
    """Part of what a sampling node's result depends on: one that a hand was laid on is to run when queued again."""
    return _times_steered


def _nothing() -> int:
    return 0


class Run(StreamHost):
    """One node's sampling of chunks, alone or in a stream."""

    def __init__(
        self,
        node: Any,
        session: GraphSession,
        chunks: int,
        fps: float,
        cancellation: Cancellation,
        steerable: bool = False,
    ) -> None:
        """Begin a run, and show it on its node.

        Args:
            node: The node's class, during its execution.
            session: The session to extend.
            chunks: Number of chunks to make; 0: until stopped.
            fps: Frames a second of the video.
            cancellation: Ends the run; the model polls it from now on.
            steerable: Whether the run takes prompts.
        """
        super().__init__(cancellation)
        self.newest = session.core
        self.extra_bytes: Callable[[], int] = _nothing  # memory that other parts of the run (a decoder) still need
        self.timings: deque[ChunkTiming] = deque(maxlen=TIMINGS_KEPT)  # of chunks that were handed out
        self._sampled: deque[ChunkTiming] = deque()  # of those that were not yet
        self.steering: Steering | None = None
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._wan = comfy_model(session.core)
        self._wan.cancellation = cancellation
        self._chunks = chunks
        self._made, self._finished, self._frames = 0, 0, 0  # chunks sampled, chunks decoded, frames of these
        self._steps = len(session.core.config.denoising_steps)
        self._bar = host.NodeProgress(node, max(1, chunks) * self._steps, cancellation)
        self._started = time.perf_counter()
        self.view = LiveView(node, self.node_id, fps, chunks, steerable)
        _runs[self.node_id] = self

    @property
    def node_id(self) -> str:
        return self._bar.node_id

    @property
    def user(self) -> str:
        """ComfyUI's, whose run it is."""
        return self.view.user

    @property
    def finished(self) -> int:
        """Chunks made so far, by this run."""
        return self._finished

    def steer(self, command: Command) -> None:
        """From any thread: to take effect between two chunks."""
        self.note_steered()
        self.commands.put(command)
        if isinstance(command, Stop):
            self.cancellation.finish()
        state = {Pause: "paused", Resume: "running", Stop: "stopping"}.get(type(command))
        if state is not None:
            self.view.tell(state="stopping" if self.cancellation.finishing else state)

    @staticmethod
    def note_steered() -> None:
        global _times_steered
        _times_steered += 1

    def make_ready(self, session: Session) -> None:
        """Load the weights with this session's patches, with room for everything that the run needs."""
        self._wan.make_ready(session, self.extra_bytes())

    def prepare(self, decoder: Decoder) -> None:
        """Leave the decoder as it is: `take_decoder` returns one that has decoded this very session."""

    def boundary(self, session: Session) -> Session:
        """Apply what was steered meanwhile, and make the weights ready."""
        session = session if self.steering is None else self.steering.boundary(session)
        self.make_ready(session)
        return session

    def make(self, session: Session, progress: Progress | None = None) -> tuple[Session, Tensor]:
        """The next chunk, from the journal or sampled."""
        marks: dict[str, float] = {}
        start = time.perf_counter()

        def report(stage: str, index: int, count: int) -> None:
            if progress is not None:
                progress(stage, index, count)
            marks.setdefault(stage, time.perf_counter())
            self.cancellation.raise_if_asked()
            if stage == "step":
                self._bar.at(self._position(index))
            if stage == "rebuild":
                self._bar.say(f"{self._ordinal(self._made + 1)}: filling the cache, pass {index + 1} of {count}")

        longer, latents = chunk_cache.next_chunk(session, report)
        end = time.perf_counter()
        sampling = marks.get("step", end)
        self.newest = longer
        self._made += 1
        self._sampled.append(ChunkTiming(session.chunks, sampling - start, end - sampling, 0.0, longer.how))
        return longer, latents

    def _position(self, step: int) -> int:
        """Of the bar; without a known end it runs once for each chunk."""
        return self._made * self._steps + step if self._chunks else step

    def _ordinal(self, chunk: int) -> str:
        return f"chunk {chunk}/{self._chunks}" if self._chunks else f"chunk {chunk}"

    @property
    def cache_bytes(self) -> int:
        return self._wan.shared.caches.nbytes

    def shown(self, event: StreamEvent) -> None:
        """Count and show a chunk that has just been decoded. A re-roll may still withdraw it."""
        self.finished_chunk(event.frames.shape[1], event.timings["decode"])
        self.view.show(event.pixels[0], event.chunk, self._finished, self.cache_bytes)

    def withdrawn(self, session: Session) -> None:
        """The chunks after ``session`` were taken back."""
        shown = [timing for timing in self.timings if timing.chunk < session.chunks]
        self._finished -= len(self.timings) - len(shown)
        self._made -= self.newest.chunks - session.chunks
        self.timings = deque(shown, maxlen=TIMINGS_KEPT)
        self._sampled.clear()
        self.newest = session
        self.view.withdraw(session.chunks, self._finished)
        if self.steering is not None:
            self.steering.re_rolled(session)

    def finished_chunk(self, frames: int, decode: float = 0.0) -> None:
        """The oldest chunk that was not yet is now done: ``frames`` frames of video, decoded in ``decode`` seconds."""
        timing = replace(self._sampled.popleft(), decode=decode)
        self.timings.append(timing)
        self._frames += frames
        seconds = max(1e-6, time.perf_counter() - self._started)
        cost = f"{self._frames / seconds:.1f} fps · {format_bytes(self.cache_bytes)} cache"
        cost = "kept from an earlier run" if timing.how.startswith("kept") else cost
        self._finished += 1
        self._bar.say(f"{self._ordinal(self._finished)} · {cost}")
        if self._finished == self._chunks:
            self._bar.at(self._bar.total)

    def say(self, text: str) -> None:
        self._bar.say(text)

    def close(self) -> None:
        """End steering, and release the decoder and the model."""
        _runs.pop(self.node_id, None)
        self.extra_bytes = _nothing
        self._wan.cancellation = host.HostCancellation()
        if self.steering is not None:
            self.steering.close()


@contextmanager
def kept_if_broken(run: Run) -> Iterator[None]:
    """Whatever ends a run early: the session so far is offered in Load Session, and memory that ran out is freed."""
    wan, begun = comfy_model(run.newest), run.newest.chunks
    wan.shared.active_runs += 1
    try:
        yield
    except BaseException as error:
        name = chunk_cache.autosave(run.newest, error) if run.newest.chunks > begun else None
        if name is not None:
            run.say(
                f"{name.removesuffix(host.SESSION_ENDING)}: Load Session has it, and running again goes on from there"
            )
        if host.is_out_of_memory(error):
            cache = wan.session_bytes(run.newest)
            wan.shared.release()
            room = host.free_memory(wan.device) - wan.working_bytes(run.newest)
            raise MemoryError(
                f"the {wan.device.type} ran out of memory (the cache is {format_bytes(cache)}); it has been freed, "
                f"and the {run.newest.chunks} chunks made so far are kept. {what_would_fit(run.newest, room)}"
            ) from error
        raise
    finally:
        run.close()
        wan.shared.active_runs -= 1
