"""Sampling and decoding overlapped: a generator of frames.

The caller's thread decodes chunk k and hands it out while a worker samples chunk k + 1. Everything else (commands,
and whatever the host does between chunks, such as moving weights) happens in the caller's thread at chunk boundaries,
when the worker is idle.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..cuda_streams import on_stream, record_on_current_stream, sampling_stream, wait_for_current_stream
from .commands import Command, CommandQueue, Cut, NewSeed, Pause, ReRoll, Resume, Stop, SwitchPrompt
from .frame_counts import video_frames
from .session import Progress, Session

POLL_SECONDS = 0.05  # how often a stream that waits looks whether it is to go on or stop


class Decoder(Protocol):
    """Latents to frames, chunk by chunk. See `WanVAE.stream_decoder`."""

    @property
    def history(self) -> int:
        """Latents before a frame that decide it."""

    @property
    def temporal_factor(self) -> int:
        """Frames that a latent stands for, but the video's first, which stands for one."""

    @property
    def cache_bytes(self) -> int:
        """Memory held between calls."""

    @property
    def at(self) -> int | None:
        """The latent frame that it would go on from; None: nowhere."""

    def reset(self) -> None:
        """Forget all that was decoded, and stand at a video's beginning."""

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor: ...


Make = Callable[[Session, Progress], tuple[Session, Tensor]]


@dataclass
class StreamEvent:
    """A chunk that is final: its frames, the session that ends with it, and what it cost.

    timings, in seconds: ``cache`` (passes that only fill the cache), ``sample`` (denoising), ``decode``, and ``wait``
    (how long the caller's thread had nothing to do before it).
    """

    chunk: int
    frames: Tensor  # [B, T, H, W, 3] in 0..1
    session: Session
    timings: dict[str, float]
    commands: tuple[Command, ...]  # that took effect with this chunk


@dataclass
class _Sampled:
    """A chunk on its way out."""

    session: Session
    latents: Tensor
    timings: dict[str, float]
    commands: tuple[Command, ...]
    event: StreamEvent | None = None  # once it is decoded


class _Stopped(Exception):
    """Raised between two forwards to give up the chunk at work."""


@dataclass
class _Playback:
    """When one who watches from the first frame on will have seen all that was made."""

    fps: float
    ahead: float | None
    ends: float = 0.0

    def add(self, frames: int) -> None:
        self.ends = max(self.ends, time.perf_counter()) + frames / self.fps

    def early(self) -> bool:
        """Whether the next chunk would come too far ahead."""
        return self.ahead is not None and self.ends - time.perf_counter() > self.ahead


@dataclass
class _Control:
    """What commands have set. All but prompt, seed and cut, which are recorded in the session itself."""

    stop: Callable[[], bool]
    commands: CommandQueue | None
    withdrawn: Callable[[Session], None] | None
    playback: _Playback
    paused: bool = False
    stopping: bool = False
    applied: list[Command] = field(default_factory=list)

    def check(self, *_: object) -> None:
        if self.stop():
            raise _Stopped

    def waits(self) -> bool:
        return (self.paused or self.playback.early()) and not self.stopping

    def take(self, wait: bool) -> Command | None:
        if self.commands is None:
            return None
        try:
            return self.commands.get(timeout=POLL_SECONDS) if wait else self.commands.get_nowait()
        except queue.Empty:
            return None


def stream(
    session: Session,
    decoder: Decoder,
    seconds: float | None = None,
    fps: float = 16,
    stop: Callable[[], bool] | None = None,
    commands: CommandQueue | None = None,
    hold_back: int = 0,
    preview: Callable[[StreamEvent], None] | None = None,
    withdrawn: Callable[[Session], None] | None = None,
    ahead: float | None = None,
    boundary: Callable[[Session], Session] | None = None,
    make: Make | None = None,
    overlap: bool = True,
) -> Generator[StreamEvent, None, None]:
    """Go on with ``session`` and give each chunk as an event, as soon as it is decoded and final.

    seconds: how much to make, in whole chunks; None: until stopped. stop: asked before every forward; true gives up
    the chunk at work and ends the stream. commands: applied between chunks, in order.
    hold_back: chunks that are kept from being handed out, so that `ReRoll` can still replace them; ``preview`` is
    called with every chunk as soon as it is decoded, held back or not, and ``withdrawn`` with the session that a
    re-roll went back to.
    ahead: seconds of video that may be made ahead of one who watches it from its first frame at ``fps``; None: as fast
    as it goes. While it waits, what is made is decoded and a re-roll still replaces it.
    boundary: called with the session in the caller's thread between chunks, while nothing is at work on the model; what
    it returns is gone on with.
    make: what makes a chunk in place of `Session.next_chunk`, which it may call.
    overlap: false samples in the caller's thread too, each chunk after the one before it was handed out.
    An error in sampling or decoding is raised after what was decoded before it has been handed out.
    """
    control = _Control(stop or (lambda: False), commands, withdrawn, _Playback(fps, ahead))
    wanted = None if seconds is None else wanted_frames(seconds, fps)
    begun = session.frames
    error: BaseException | None = None
    held: deque[_Sampled] = deque()
    sampler: Executor = ThreadPoolExecutor(1, "self-forcing-sampler") if overlap else _InPlace()
    job: Future[_Sampled] | None = None
    # on a GPU: or frames would only come out behind the chunk that is being sampled
    own_queue = sampling_stream(session.model.device) if overlap else None

    decoder.reset()  # it may stand at this very frame of another video

    def decode_held() -> None:
        for made in held:
            if made.event is None:
                made.event = _decode(made, decoder)
                control.playback.add(made.event.frames.shape[1])
                if preview is not None:
                    preview(made.event)

    def emit(keep: int) -> Iterator[StreamEvent]:
        error: BaseException | None = None
        try:
            decode_held()
        except BaseException as failure:
            error, keep = failure, 0
        while len(held) > keep and (event := held[0].event) is not None:
            held.popleft()
            yield event
        if error is not None:
            raise error

    try:
        while not control.stopping:
            session = _apply_commands(session, control, held, wait=False)
            if control.waits():
                yield from emit(hold_back)
                session = _wait(session, control, held)
            if control.stopping or _made(session, begun, decoder) >= (wanted or float("inf")):
                break
            if not overlap:
                yield from emit(hold_back)
            if boundary is not None:
                session = boundary(session)
            wait_for_current_stream(own_queue)
            job = sampler.submit(_sample, session, control, tuple(control.applied), make, own_queue)
            control.applied.clear()
            yield from emit(hold_back)
            idle = time.perf_counter()
            try:
                made = job.result()
            except _Stopped:
                break
            except BaseException as failure:  # an interrupt too: what was made before it goes out first
                error = failure
                break
            made.timings["wait"] = time.perf_counter() - idle
            record_on_current_stream(made.latents)
            session = made.session
            held.append(made)
    finally:
        control.stop = lambda: True  # the caller may have left in the middle of a chunk
        sampler.shutdown(wait=True)
    yield from emit(0)
    if error is not None:
        raise error


def wanted_frames(seconds: float, fps: float) -> int:
    """Frames of video in ``seconds``, at least one."""
    return max(1, round(seconds * fps))


def chunks_for(session: Session, seconds: float, fps: float, temporal_factor: int) -> int:
    """How many chunks `stream` makes of ``seconds``, by a decoder of ``temporal_factor``."""
    wanted, chunks = wanted_frames(seconds, fps), 0
    if not session.frames:  # a video's first latent is one frame
        wanted -= video_frames(session.config.frames_of_block(0), temporal_factor)
        chunks = 1
    return chunks + -(-max(0, wanted) // (temporal_factor * session.config.chunk_frames))


def _made(session: Session, begun: int, decoder: Decoder) -> int:
    """Frames of video since latent frame ``begun``."""
    factor = decoder.temporal_factor
    return video_frames(session.frames, factor) - video_frames(begun, factor)


class _InPlace(Executor):
    """Does a job when it is handed in."""

    def submit(self, fn: Callable[..., _Sampled], /, *args: Any, **kwargs: Any) -> Future[_Sampled]:  # type: ignore[override]
        job: Future[_Sampled] = Future()
        try:
            job.set_result(fn(*args, **kwargs))
        except BaseException as error:  # as a worker would: it is raised where the result is asked for
            job.set_exception(error)
        return job


def _sample(
    session: Session,
    control: _Control,
    commands: tuple[Command, ...],
    make: Make | None,
    own_queue: torch.cuda.Stream | None,
) -> _Sampled:
    """In the worker: one chunk, its stages timed."""
    marks: dict[str, float] = {}

    def progress(stage: str, index: int, count: int) -> None:
        control.check()
        marks.setdefault(stage, time.perf_counter())

    start = time.perf_counter()
    with on_stream(own_queue):
        longer, latents = session.next_chunk(progress) if make is None else make(session, progress)
    end = time.perf_counter()
    first_step = marks.get("step", end)
    return _Sampled(longer, latents, {"cache": first_step - start, "sample": end - first_step}, commands)


def history_for(decoder: Decoder, session: Session, at: int) -> Tensor | None:
    """What ``decoder`` has to see of ``session`` again to go on at latent ``at``; None if it stands there."""
    return None if decoder.at == at else session.latents_between(max(0, at - decoder.history), at)


def _decode(made: _Sampled, decoder: Decoder) -> StreamEvent:
    start = time.perf_counter()
    at = made.session.frames - made.latents.shape[2]
    frames = decoder(made.latents, at=at, history=history_for(decoder, made.session, at))
    timings = {**made.timings, "decode": time.perf_counter() - start}
    return StreamEvent(made.session.chunks - 1, frames, made.session, timings, made.commands)


def _apply_commands(session: Session, control: _Control, held: deque[_Sampled], wait: bool) -> Session:
    command = control.take(wait)
    while command is not None:
        session = _apply(command, session, control, held)
        command = control.take(wait=False)
    return session


def _apply(command: Command, session: Session, control: _Control, held: deque[_Sampled]) -> Session:
    match command:
        case Pause():
            control.paused = True
            return session
        case Resume():
            control.paused = False
            return session
        case Stop():
            control.stopping = True
            return session
        case SwitchPrompt(prompt, recache, recache_sink):
            session = session.with_prompt(prompt, recache, recache_sink)
        case NewSeed(seed):
            session = session.with_seed(seed)
        case Cut():
            session = session.with_cut()
        case ReRoll(seed):
            session = session.rewind(len(held)).with_seed(seed)
            while held:
                event = held.pop().event
                control.playback.add(0 if event is None else -event.frames.shape[1])
            if control.withdrawn is not None:
                control.withdrawn(session)
    control.applied.append(command)
    return session


def _wait(session: Session, control: _Control, held: deque[_Sampled]) -> Session:
    """Until a pause is over, or playback has come near enough."""
    while control.waits():
        control.stopping = control.stop()
        session = _apply_commands(session, control, held, wait=True)
        if control.commands is None:
            time.sleep(POLL_SECONDS)
    return session
