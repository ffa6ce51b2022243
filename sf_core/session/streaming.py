"""A stream of frames: one chunk is sampled while the chunk before it is decoded.

The caller's thread decodes chunk k and hands it out; meanwhile a worker samples chunk k + 1 (without ``overlap``, the
caller's thread does both in turn). Everything else (commands, and whatever the host does between chunks, such as moving
weights) happens in the caller's thread at chunk boundaries, when the worker is idle.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..cancellation import Cancellation
from ..cuda_streams import on_stream, record_on_current_stream, sampling_stream, wait_for_current_stream
from .commands import Command, CommandQueue, Pause, ReRoll, Resume, Stop
from .frame_counts import video_frames
from .session import Session
from .stream_host import Decoder, Source, StreamEvent, StreamHost

POLL_SECONDS = 0.02  # between two looks of a waiting stream at its commands
# just in time, a chunk begins before it is due: a multiple of the longest time of the last chunks, and some seconds
RESERVE, JITTER, CHUNKS_TIMED = 1.5, 0.04, 8


def stream(
    session: Session,
    decoder: Decoder,
    seconds: float | None = None,
    fps: float = 16,
    stop: Callable[[], bool] | None = None,
    commands: CommandQueue | None = None,
    hold_back: int = 0,
    ahead: float | None = None,
    overlap: bool = True,
    host: StreamHost | None = None,
    just_in_time: bool = False,
    source: Source | None = None,
) -> Generator[StreamEvent, None, None]:
    """Extend ``session`` and yield each chunk as soon as it is decoded and final.

    Args:
        session: The session to extend.
        decoder: Makes the frames.
        seconds: Length of the new video, rounded up to whole chunks. None: until stopped.
        fps: Frames a second of the video.
        stop: Asked before every forward. True gives up the chunk in progress and ends the stream.
        commands: Applied between chunks, in order.
        hold_back: Number of decoded chunks that are not yielded yet, so that `ReRoll` can replace them.
        ahead: Seconds of video that may be made ahead of a viewer who plays it from its first frame. None: no limit.
            While the stream waits, decoding, commands and re-rolls go on.
        overlap: False: sample in the caller's thread as well, each chunk after the one before it was yielded.
        host: What happens between chunks, and the cancellation; in place of ``stop``.
        just_in_time: Begin a chunk only when the video before it is nearly played, so that a prompt is seen as soon as
            possible: as early as the slowest of the last chunks requires, and no earlier than ``ahead`` allows.
        source: What each chunk is made from, besides noise. The stream ends when it is over.

    Raises:
        ValueError: Both ``stop`` and ``host`` are given.
        BaseException: Any error of sampling or decoding, once the chunks decoded before it have been yielded.
    """
    if stop is not None and host is not None:
        raise ValueError("give 'stop' or 'host', not both: a host's cancellation polls what its program asks it to")
    host = host or StreamHost(Cancellation(stop))
    chunks = None if seconds is None else chunks_for(session, seconds, fps, decoder.temporal_factor)
    playback = _Playback(fps, ahead, host, just_in_time)
    return _Stream(session, decoder, chunks, commands, hold_back, overlap, host, playback, source).events()


def chunks_for(session: Session, seconds: float, fps: float, temporal_factor: int) -> int:
    """Return the number of chunks that `stream` makes of ``seconds``, with a decoder of ``temporal_factor``."""
    wanted, chunks = max(1, round(seconds * fps)), 0
    if not session.frames:  # a video's first latent is one frame
        wanted -= video_frames(session.config.frames_of_block(0), temporal_factor)
        chunks = 1
    return chunks + -(-max(0, wanted) // (temporal_factor * session.config.chunk_frames))


def frames_after(session: Session, chunks: int) -> int:
    """Return the number of latent frames of ``session`` with ``chunks`` more."""
    first = session.config.frames_of_block(session.frames) if chunks else 0
    return session.frames + first + max(0, chunks - 1) * session.config.chunk_frames


def history_for(decoder: Decoder, session: Session, at: int) -> Tensor | None:
    """Return the latents that ``decoder`` has to see again to go on at latent frame ``at``; None: none."""
    return None if decoder.at == at else session.latents_between(max(0, at - decoder.history), at)


@dataclass
class _Playback:
    """The time at which a viewer, who watches from the first frame on, reaches the end of what exists."""

    fps: float
    ahead: float | None
    host: StreamHost
    just_in_time: bool = False
    ends: float = 0.0
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=CHUNKS_TIMED))  # seconds that chunks took

    def add(self, frames: int) -> None:
        self.ends = max(self.ends, self.host.clock()) + frames / self.fps

    def is_too_far_ahead(self, undecoded: int) -> bool:
        """Whether the next chunk would come too far ahead, with a number of frames that wait for the decoder."""
        if self.ahead is None:
            return False
        lead = self.ends - self.host.clock()
        if not self.just_in_time or not self.durations:
            return lead > self.ahead
        return lead + undecoded / self.fps > min(self.ahead, RESERVE * max(self.durations) + JITTER)


@dataclass
class _Sampled:
    """A chunk that has been sampled and not handed out. event: None until it is decoded."""

    session: Session
    latents: Tensor
    timings: dict[str, float]
    event: StreamEvent | None = None


class _Stream:
    """The state of one `stream`."""

    def __init__(
        self,
        session: Session,
        decoder: Decoder,
        chunks: int | None,
        commands: CommandQueue | None,
        hold_back: int,
        overlap: bool,
        host: StreamHost,
        playback: _Playback,
        source: Source | None,
    ) -> None:
        self._session, self._decoder, self._host, self._commands = session, decoder, host, commands
        self._end = None if chunks is None else frames_after(session, chunks)
        self._hold_back, self._overlap, self._source = hold_back, overlap, source
        self._playback, self._paused = playback, False
        self._pending: deque[_Sampled] = deque()
        # on a GPU: without a CUDA stream of its own, sampling would delay the frames of the chunk before
        self._cuda_stream = sampling_stream(session.model.device) if overlap else None

    def events(self) -> Generator[StreamEvent, None, None]:
        """Run the loop."""
        self._host.prepare(self._decoder)
        sampler: Executor = ThreadPoolExecutor(1, "self-forcing-sampler") if self._overlap else _InPlace()
        failure: BaseException | None = None
        try:
            while failure is None:
                self._obey()
                if self._must_wait():
                    yield from self._hand_out(self._hold_back)
                    self._wait()
                if not self._overlap:
                    yield from self._hand_out(self._hold_back)
                if self._host.cancellation.finishing or self._is_complete():
                    break
                job = self._begin_chunk(sampler)
                yield from self._hand_out(self._hold_back)
                source_failure = self._prepare_source()
                failure = self._collect(job) or source_failure
        except BaseException:  # decoding or the host failed, or the caller closed the stream: stop the worker
            self._host.cancellation.cancel()
            raise
        finally:
            sampler.shutdown(wait=True)
        yield from self._hand_out(hold_back=0)
        if failure is not None and not self._host.cancellation.causes(failure):
            raise failure

    def _is_complete(self) -> bool:
        if self._end is not None and self._session.frames >= self._end:
            return True
        return self._source is not None and self._source.is_over(self._session)

    # Sampling ---------------------------------------------------------------------------------------------------------

    def _begin_chunk(self, sampler: Executor) -> Future[_Sampled]:
        """Start the next chunk. An error at the boundary counts as the chunk's."""
        try:
            self._session = self._host.boundary(self._session)
            if self._source is not None:
                self._session = self._source.give(self._session)
        except BaseException as error:
            failed: Future[_Sampled] = Future()
            failed.set_exception(error)
            return failed
        wait_for_current_stream(self._cuda_stream)
        return sampler.submit(self._sample, self._session)

    def _sample(self, session: Session) -> _Sampled:
        """Sample one chunk and time its stages. In the worker."""
        marks: dict[str, float] = {}
        cancellation, clock = self._host.cancellation, self._host.clock

        def progress(stage: str, index: int, count: int) -> None:
            cancellation.raise_if_asked()
            marks.setdefault(stage, clock())

        start = clock()
        try:
            with on_stream(self._cuda_stream):
                longer, latents = self._host.make(session, progress)
        except BaseException as error:
            cancellation.note(error)  # so that the decoder stops within a layer
            raise
        end = clock()
        first_step = marks.get("step", end)
        return _Sampled(longer, latents, {"cache": first_step - start, "sample": end - first_step})

    def _prepare_source(self) -> BaseException | None:
        """While a worker samples, get the source of the chunk behind that one ready. Returns the error if it fails."""
        after = self._session.frames + self._session.config.frames_of_block(self._session.frames)
        if self._source is None or not self._overlap or (self._end is not None and after >= self._end):
            return None
        try:
            self._source.prepare(after, self._session.config.frames_of_block(after))
        except BaseException as error:
            return error
        return None

    def _collect(self, job: Future[_Sampled]) -> BaseException | None:
        """Wait for the chunk in progress. Returns the error that ended it, an interrupt included."""
        idle_since = self._host.clock()
        try:
            sampled = job.result()
        except BaseException as error:
            self._host.cancellation.note(error)
            if not job.done():  # Ctrl-C: nobody waits for the chunk
                self._host.cancellation.cancel()
            return error
        sampled.timings["wait"] = self._host.clock() - idle_since
        record_on_current_stream(sampled.latents)
        self._session = sampled.session
        self._pending.append(sampled)
        return None

    # Decoding ---------------------------------------------------------------------------------------------------------

    def _hand_out(self, hold_back: int) -> Iterator[StreamEvent]:
        """Decode all that is pending, and yield all but the newest ``hold_back`` chunks; on an error, all there are."""
        failure: BaseException | None = None
        try:
            for sampled in self._pending:
                if sampled.event is None:
                    self._decode(sampled)
        except BaseException as error:
            failure, hold_back = error, 0
        while len(self._pending) > hold_back and (event := self._pending[0].event) is not None:
            self._pending.popleft()
            yield event
        if failure is not None:
            self._host.cancellation.note(failure)
            if not self._host.cancellation.causes(failure):
                raise failure

    def _decode(self, sampled: _Sampled) -> None:
        start = self._host.clock()
        session, at = sampled.session, sampled.session.frames - sampled.latents.shape[2]
        frames = self._decoder(sampled.latents, at=at, history=history_for(self._decoder, session, at))
        event = StreamEvent(session.chunks - 1, frames, session, {**sampled.timings})
        _ = event.pixels  # waits for the GPU, which has only been given the work until now
        event.timings["decode"] = self._host.clock() - start
        sampled.event = event
        self._playback.add(frames.shape[1])
        self._host.shown(event)
        sampling = event.timings["cache"] + event.timings["sample"]
        self._playback.durations.append(sampling + self._host.clock() - start)

    # Commands ---------------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        """Apply the commands that have arrived."""
        while self._commands is not None:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            self._apply(command)

    def _apply(self, command: Command) -> None:
        match command:
            case Pause():
                self._paused = True
            case Resume():
                self._paused = False
            case Stop():
                self._host.cancellation.finish()
            case ReRoll(seed):
                self._session = self._session.rewind(len(self._pending)).with_seed(seed)
                while self._pending:
                    event = self._pending.pop().event
                    if event is not None:
                        self._playback.add(-event.frames.shape[1])
                self._host.withdrawn(self._session)

    def _must_wait(self) -> bool:
        latents = sum(sampled.latents.shape[2] for sampled in self._pending if sampled.event is None)
        is_ahead = self._playback.is_too_far_ahead(latents * self._decoder.temporal_factor)
        return (self._paused or is_ahead or self._host.must_wait()) and not self._host.cancellation.finishing

    def _wait(self) -> None:
        """Wait for the end of a pause, or for playback to come near enough."""
        while self._must_wait():
            self._host.sleep(POLL_SECONDS)
            self._obey()
            if self._host.cancellation.asked:
                return


class _InPlace(Executor):
    """Runs a job at once, in the thread that submits it."""

    def submit(self, fn: Callable[..., _Sampled], /, *args: Any, **kwargs: Any) -> Future[_Sampled]:  # type: ignore[override]
        job: Future[_Sampled] = Future()
        try:
            job.set_result(fn(*args, **kwargs))
        except BaseException as error:  # as in a worker: raised where the result is asked for
            job.set_exception(error)
        return job
