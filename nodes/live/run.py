"""A run of sampling: loaded weights, stored chunks, progress, and autosave when it ends early."""

from __future__ import annotations

import itertools
import queue
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ...sf_core.byte_units import format_bytes
from ...sf_core.cancellation import Cancellation
from ...sf_core.memory_ledger import DecoderCost
from ...sf_core.message import NOTHING, Message
from ...sf_core.session.commands import Command, Pause, Resume, Stop
from ...sf_core.session.drift_guard import DriftGuard
from ...sf_core.session.idle import UNWATCHED_SECONDS, IdlePause
from ...sf_core.session.next_chunk import Progress
from ...sf_core.session.session import Session
from ...sf_core.session.stream_host import Decoder, StreamEvent, StreamHost
from ..adapters import host, memory
from ..adapters.memory_report import out_of_memory_error
from ..adapters.model import comfy_model
from ..adapters.running_prompt import executing_node, graph_digest
from ..adapters.wire_types import TIMINGS_KEPT, ChunkTiming, GraphSession
from . import saved_sessions
from .chunk_cache import ChunkCache
from .drift_report import DriftReport
from .live_copy import LiveCopy
from .steering import Steering
from .view import LiveView

_runs: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()  # by node; one prompt runs at a time
_times_steered: OrderedDict[bytes, int] = OrderedDict()  # by the graph of a node; the one steered last at the end
_steering_number = itertools.count(1)
STEERED_REMEMBERED = 1000  # graphs of nodes


def run_of(node_id: str, user: str, run_id: str | None = None, client_id: str | None = None) -> Run | None:
    """Return the active run of a node, if it is of this user, and of this name and client where they are given."""
    run = _runs.get(node_id)
    if run is None or run.user != user:
        return None
    named = run_id in (None, run.view.run) and client_id in (None, run.view.client)
    return run if named else None


def live_runs(user: str) -> list[Run]:
    """Return the active runs of ``user``."""
    return [run for run in list(_runs.values()) if run.user == user]


def times_steered() -> int:
    """Return a fingerprint of the node that is asked for it, so that ComfyUI does not reuse a steered result.

    It changes when the node is steered with the very graph before it that runs now, and with nothing else.
    """
    return _times_steered.get(graph_digest(executing_node()), 0)


def _note_steered(graph: bytes) -> None:
    """Change the fingerprint of a node with this graph before it; see `times_steered`."""
    _times_steered[graph] = next(_steering_number)
    _times_steered.move_to_end(graph)
    while len(_times_steered) > STEERED_REMEMBERED:
        _times_steered.popitem(last=False)


class Run(StreamHost):
    """One node's sampling of chunks, alone or in a stream."""

    def __init__(
        self,
        node: Any,
        session: GraphSession,
        chunks: int,
        fps: float,
        cancellation: Cancellation,
        guard: DriftGuard,
        steerable: bool = False,
    ) -> None:
        """Begin a run, and show it on its node.

        Args:
            node: The node's class, during its execution.
            session: The session to extend.
            chunks: Number of chunks to make; 0: until stopped.
            fps: Frames a second of the video.
            cancellation: Ends the run; the model polls it from now on.
            guard: Measures the chunks, and acts when they drift.
            steerable: Whether the run takes prompts.
        """
        super().__init__(cancellation)
        self.newest = session.core
        self.decoder_cost: DecoderCost | None = None  # of the decoder, if the run decodes
        self.decoder: Decoder | None = None  # where its state counts as memory that is taken already
        # of finished chunks (decoded; in Sample Chunks sampled), and of chunks sampled since
        self.timings: deque[ChunkTiming] = deque(maxlen=TIMINGS_KEPT)
        self._sampled: deque[ChunkTiming] = deque()
        self.steering: Steering | None = None
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._wan = comfy_model(session.core)
        self._wan.cancellation = cancellation
        self._chunks = chunks
        self._made, self._finished, self._frames = 0, 0, 0  # chunks sampled, chunks decoded, frames of these
        self._steps = len(session.core.config.timesteps(1))
        self._bar = host.NodeProgress(max(1, chunks) * self._steps, cancellation)
        self._started = time.perf_counter()
        # without a reference to the run, which is freed when the node has ended, not by a later collection
        self.note_steered = partial(_note_steered, graph_digest(self.node_id))
        self.view = LiveView(node, fps, chunks, steerable)
        self.drift = DriftReport(guard, self.view)
        self._stored, self._copy = ChunkCache(self.view.say), LiveCopy(self.view.about)
        view = self.view  # not the run, which is freed when the node has ended
        self._idle = IdlePause(lambda: bool(view.watchers), partial(_say_idle, view))
        _runs[self.node_id] = self

    @property
    def node_id(self) -> str:
        """The node's execution id."""
        return self._bar.node_id

    @property
    def user(self) -> str:
        """ComfyUI's user who queued the run."""
        return self.view.user

    @property
    def finished(self) -> int:
        """Number of chunks that this run has finished."""
        return self._finished

    def steer(self, command: Command) -> None:
        """Send a command, which takes effect between two chunks. From any thread."""
        self.commands.put(command)
        if isinstance(command, Stop):
            self.note_steered()
            self.cancellation.finish()
        state = {Pause: "paused", Resume: "running", Stop: "stopping"}.get(type(command))
        if state is not None:
            self.view.tell(state="stopping" if self.cancellation.finishing else state)

    @property
    def waiting(self) -> int:
        """Number of commands and actions that wait for the next chunk."""
        return self.commands.qsize() + (0 if self.steering is None else self.steering.waiting)

    def sleep(self, seconds: float) -> None:
        """Wait, paused or ahead of the viewer, which counts as no work."""
        time.sleep(seconds)
        self.view.idle_seconds += seconds

    def make_ready(self, session: Session) -> None:
        """Load the weights with this session's patches, with room for everything that the run needs."""
        self._wan.make_ready(session, self.decoder_cost, self.decoder.cache_bytes if self.decoder else 0)

    def prepare(self, decoder: Decoder) -> None:
        """Leave the decoder as it is: `take_decoder` returns one that has decoded this very session."""

    def must_wait(self) -> bool:
        """Whether a stream without an end has to wait: nobody has watched it for a while."""
        return not self._chunks and self._idle.must_wait()

    def boundary(self, session: Session) -> Session:
        """Apply the timeline and new steering actions, and make the weights ready."""
        session = session if self.steering is None else self.steering.boundary(session)
        session = self.drift.boundary(session)
        self.make_ready(session)
        return session

    def make(self, session: Session, progress: Progress | None = None) -> tuple[Session, Tensor]:
        """Make the next chunk, from the disk cache or by sampling."""
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
                what = {"chunk": self._ordinal(self._made + 1), "index": index + 1, "count": count}
                self._bar.say(Message("{chunk}: rebuilding the cache, pass {index} of {count}", **what))

        longer, latents = self._stored.next_chunk(session, report)
        end = time.perf_counter()
        sampling = marks.get("step", end)
        self.newest = longer
        self.drift.made(longer)
        self._copy.offer(longer)
        self._made += 1
        self._sampled.append(ChunkTiming(session.chunks, sampling - start, end - sampling, 0.0, longer.how))
        return longer, latents

    def _position(self, step: int) -> int:
        """Position of the bar. Without a known end, the bar runs once for each chunk."""
        return self._made * self._steps + step if self._chunks else step

    def _ordinal(self, chunk: int) -> Message:
        return Message("chunk {n}/{of}", n=chunk, of=self._chunks) if self._chunks else Message("chunk {n}", n=chunk)

    @property
    def cache_bytes(self) -> int:
        """Memory of the KV caches."""
        return self._wan.shared.caches.nbytes

    def shown(self, event: StreamEvent) -> None:
        """Count and show a chunk that has just been decoded. A re-roll may still withdraw it."""
        self.finished_chunk(event.frames.shape[1], event.timings["decode"])
        self.drift.shown(event.pixels)
        self.view.show(event.pixels[0], event.chunk, self._finished, self.cache_bytes)

    def withdrawn(self, session: Session) -> None:
        """Forget the chunks after ``session``, which a re-roll removed."""
        remaining = [timing for timing in self.timings if timing.chunk < session.chunks]
        self._finished -= len(self.timings) - len(remaining)
        self._made -= self.newest.chunks - session.chunks
        self.timings = deque(remaining, maxlen=TIMINGS_KEPT)
        self._sampled.clear()
        self.newest = session
        self.drift.withdrawn(session)
        self.view.withdraw(session.chunks, self._finished)
        if self.steering is not None:
            self.steering.re_rolled(session)

    def finished_chunk(self, frames: int, decode: float = 0.0) -> None:
        """Count the oldest unfinished chunk as finished, and show that on the node.

        Args:
            frames: Frames of video that it has.
            decode: Seconds that decoding took.
        """
        timing = replace(self._sampled.popleft(), decode=decode)
        self.timings.append(timing)
        self._frames += frames
        seconds = max(1e-6, time.perf_counter() - self._started - self.view.idle_seconds)
        fps, cache = f"{self._frames / seconds:.1f}", format_bytes(self.cache_bytes)
        self._finished += 1
        chunk = self._ordinal(self._finished)
        if timing.how.startswith("kept"):
            self._bar.say(Message("{chunk} · kept from an earlier run", chunk=chunk))
        else:
            self._bar.say(Message("{chunk} · {fps} fps · {cache} cache", chunk=chunk, fps=fps, cache=cache))
        if self._finished == self._chunks:
            self._bar.at(self._bar.total)

    def say(self, message: Message) -> None:
        """Show a message on the node."""
        self._bar.say(message)

    def close(self) -> None:
        """Unregister the run, end the text encoder's thread, and give the model a cancellation of its own again."""
        _runs.pop(self.node_id, None)
        self._copy.close()
        self.decoder = None
        self._wan.cancellation = host.HostCancellation()
        if self.steering is not None:
            self.steering.close()


def _keep(session: Session, error: BaseException, view: LiveView) -> bool:
    """Save the session of a run that ended early, and say where. Returns whether it could be saved."""
    path = saved_sessions.keep(session, "interrupted" if host.is_interrupt(error) else "failed", view.about)
    if path is None:
        view.say(Message("the session of {n} chunks could not be kept: no disk takes it", n=session.chunks))
    else:
        view.keep(path)
        view.say(Message("{name}: Load Session lists it, and running again continues from there", name=path.stem))
    return path is not None


def _say_idle(view: LiveView, paused: bool) -> None:
    minutes = f"{UNWATCHED_SECONDS / 60:g}"
    note = Message("paused: nobody has watched for {minutes} minutes. It goes on when somebody does", minutes=minutes)
    view.say(note if paused else NOTHING)


@contextmanager
def autosaved(run: Run) -> Iterator[None]:
    """Save the session for Load Session when the block ends, and free everything if memory ran out."""
    shared, begun = comfy_model(run.newest).shared, run.newest.chunks
    with shared.in_use():
        try:
            yield
            if run.newest.chunks > begun and (path := saved_sessions.keep_ended(run.newest, run.view.about)):
                run.view.keep(path)
        except BaseException as error:
            saved = run.newest.chunks > begun and _keep(run.newest, error, run.view)
            if memory.is_out_of_memory(error):
                run.close()
                kept = f", and the {run.newest.chunks} chunks made so far are kept" if saved else ""
                raise out_of_memory_error(error, run.newest, run.decoder_cost, kept) from None
            raise
        finally:
            run.close()
