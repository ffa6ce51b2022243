"""The stream hands out what a plain loop would make, in time, and obeys between chunks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sf_core
from sf_core import Cancellation, Pause, ReRoll, Resume, Stop, StreamEvent, StreamHost, tiny
from sf_core.files.pixels import to_bytes
from sf_core.session.commands import Command
from sf_core.session.next_chunk import Progress
from sf_core.session.streaming import chunks_for, stream
from tests.helpers import SIZE, prompt, random_model

MODEL = random_model(layers=2)
CONFIG = sf_core.RolloutConfig(chunk_frames=2, window_frames=6, denoising_steps=(1000, 500))


class Decoder:
    """Each latent frame becomes one grey frame; remembers two latents, and how it was called."""

    history = 2
    temporal_factor = 1
    cache_bytes = 0

    def __init__(self) -> None:
        self.at: int | None = 0
        self.calls: list[tuple[int, int]] = []  # at, frames of history

    def reset(self) -> None:
        self.at = 0

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        self.calls.append((at, 0 if history is None else history.shape[2]))
        self.at = at + latents.shape[2]
        return latents.mean(dim=1).unsqueeze(-1).expand(-1, -1, -1, -1, 3)


class Host(StreamHost):
    """Notes what a stream tells it. Its time passes only while the stream waits."""

    def __init__(
        self, cancellation: Cancellation | None = None, at: dict[float, Callable[[], None]] | None = None
    ) -> None:
        """at: what happens at a time, in seconds from the beginning."""
        super().__init__(cancellation)
        self.time = 0.0
        self.at = at or {}
        self.seen: list[int] = []  # chunks that were shown
        self.back: list[int] = []  # chunks of the sessions that a re-roll went back to
        self.clock, self.sleep = lambda: self.time, self._sleep

    def _sleep(self, seconds: float) -> None:
        assert self.time < 1000, "the stream waits for ever"
        self.time += seconds
        for time in [time for time in self.at if time <= self.time]:
            self.at.pop(time)()

    def shown(self, event: StreamEvent) -> None:
        self.seen.append(event.chunk)

    def withdrawn(self, session: sf_core.Session) -> None:
        self.back.append(session.chunks)


def start(seed: int = 0) -> sf_core.Session:
    return sf_core.Session.start(MODEL, prompt(0), SIZE, CONFIG, seed=seed)


def plain(session: sf_core.Session, chunks: int) -> sf_core.Session:
    for _ in range(chunks):
        session, _ = session.next_chunk()
    return session


def put(*commands: Command) -> queue.SimpleQueue[Command]:
    line: queue.SimpleQueue[Command] = queue.SimpleQueue()
    for command in commands:
        line.put(command)
    return line


def test_a_stream_gives_what_a_plain_loop_gives() -> None:
    events = list(stream(start(), Decoder(), seconds=1, fps=16))
    expected = plain(start(), 8)
    assert [event.chunk for event in events] == list(range(8))
    assert torch.equal(events[-1].session.latents, expected.latents)
    frames = torch.cat([event.frames for event in events], dim=1)
    assert torch.equal(frames[..., 0], expected.latents.mean(dim=1))


def test_seconds_are_rounded_up_to_whole_chunks_of_frames() -> None:
    assert sum(event.frames.shape[1] for event in stream(start(), Decoder(), seconds=0.3, fps=16)) == 6
    four = Decoder()
    four.temporal_factor = 4  # the first latent stands for one frame: 5, then 8 a chunk
    assert len(list(stream(start(), four, seconds=1, fps=16))) == 3
    assert len(list(stream(plain(start(), 2), four, seconds=1, fps=16))) == 2


def test_every_event_tells_what_its_stages_took() -> None:
    for event in stream(start(), Decoder(), seconds=0.5, fps=16):
        assert set(event.timings) == {"cache", "sample", "decode", "wait"}
        assert all(seconds >= 0 for seconds in event.timings.values())
        assert event.timings["sample"] > 0


def test_times_are_of_finished_frames_not_of_work_that_a_gpu_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder on a GPU returns at once; the frames are done when they can be copied."""
    host = Host()

    def copy(frames: Tensor) -> Tensor:
        host.time += 0.2
        return to_bytes(frames)

    monkeypatch.setattr("sf_core.session.stream_host.to_bytes", copy)
    when_shown: list[float] = []
    host.shown = lambda event: when_shown.append(host.time)  # type: ignore[method-assign]
    events = list(stream(start(), Decoder(), seconds=0.5, fps=16, host=host, overlap=False))
    assert [round(event.timings["decode"], 3) for event in events] == [0.2] * len(events)
    assert [round(time, 3) for time in when_shown] == [round(0.2 * (i + 1), 3) for i in range(len(events))]


def test_frames_leave_while_the_next_chunk_is_being_sampled() -> None:
    """The worker is held inside chunk 1; chunk 0's event arrives all the same, and before any pass for chunk 1."""
    reached, go_on = threading.Event(), threading.Event()
    seen = 0

    def hold(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:  # two steps of chunk 0, then the pass that writes its keys and values
            reached.set()
            assert go_on.wait(10)

    handle = MODEL.patch_embedding.register_forward_hook(hold)
    try:
        events = stream(start(), Decoder(), seconds=0.25, fps=16)
        first = next(events)
        assert reached.wait(10)
        assert (first.chunk, seen) == (0, 3)
        go_on.set()
        assert [event.chunk for event in events] == [1]
    finally:
        handle.remove()


@pytest.mark.parametrize("overlap", [True, False])
def test_prompts_seeds_and_cuts_of_the_boundary_hold_from_the_next_chunk_on(overlap: bool) -> None:
    class Steers(Host):
        def boundary(self, session: sf_core.Session) -> sf_core.Session:
            if session.chunks == 3:
                session = session.with_prompt(prompt(1), recache=True).with_seed(9)
            return session.with_cut() if session.chunks == 7 else session

    events = list(stream(start(), Decoder(), seconds=1.5, fps=16, host=Steers(), overlap=overlap))
    expected = plain(start(), 3).with_prompt(prompt(1), recache=True).with_seed(9)
    expected = plain(plain(expected, 4).with_cut(), 5)
    assert torch.equal(events[-1].session.latents, expected.latents)


def test_stop_gives_up_the_chunk_at_work_between_two_steps() -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 7  # chunk 0: 2 steps; chunk 1: a pass and 2 steps; in the middle of chunk 2

    events = list(stream(start(), Decoder(), stop=stop))
    assert [event.chunk for event in events] == [0, 1]
    assert torch.equal(plain(events[-1].session, 1).latents, plain(start(), 3).latents)


def test_a_stop_command_ends_after_the_chunk_at_work() -> None:
    line = put()
    events = []
    for event in stream(start(), Decoder(), commands=line):
        events.append(event)
        if event.chunk == 3:
            line.put(Stop())
    assert events[-1].chunk <= 6
    assert torch.equal(events[-1].session.latents, plain(start(), len(events)).latents)


def test_a_pause_samples_nothing_until_resume() -> None:
    line = put(Pause())
    made_before_resume: list[int] = []

    def resume() -> None:
        made_before_resume.append(len(host.seen))
        line.put(Resume())

    host = Host(at={30.0: resume})
    events = list(stream(start(), Decoder(), seconds=0.25, fps=16, commands=line, host=host))
    assert made_before_resume == [0]
    assert 30 <= host.time < 30.1
    assert [event.chunk for event in events] == [0, 1]


def test_a_pause_hands_out_all_but_what_is_held_back() -> None:
    line = put()
    host = Host(at={1.0: lambda: line.put(Resume())})
    handed_out_at: dict[int, float] = {}
    for event in stream(start(), Decoder(), seconds=1, fps=16, commands=line, hold_back=1, host=host):
        handed_out_at[event.chunk] = host.time
        if event.chunk == 2:
            line.put(Pause())
    assert handed_out_at[2] == 0
    assert handed_out_at[7] >= 1
    assert list(handed_out_at) == host.seen == list(range(8))


def test_a_re_roll_replaces_what_has_not_been_handed_out() -> None:
    line, host = put(), Host()
    final: list[sf_core.Session] = []
    for event in stream(start(), Decoder(), seconds=1, fps=16, commands=line, hold_back=1, host=host):
        final.append(event.session)
        if event.chunk == 2 and not host.back:
            line.put(ReRoll(77))
    assert [session.chunks for session in final] == list(range(1, 9))  # each chunk handed out once, in order
    (back,) = host.back
    assert host.seen == [*range(host.seen.index(back) + 1), *range(back, 8)]  # but shown again after the re-roll
    first_new = next(i for i, session in enumerate(final) if session.noise == sf_core.SeededNoise(77))
    expected = plain(plain(start(), first_new).with_seed(77), 8 - first_new)
    assert torch.equal(final[-1].latents, expected.latents)


@pytest.mark.parametrize("overlap", [True, False])
def test_a_watched_stream_makes_no_more_than_plays(overlap: bool) -> None:
    """8 frames a second, chunks of 2: never more than the time that passed, what may be ahead, and a chunk."""
    host = Host()
    times = []
    events = stream(start(), Decoder(), seconds=3, fps=8, commands=put(), ahead=0.5, host=host, overlap=overlap)
    for made, _ in enumerate(events, 1):
        times.append(host.time)
        assert made * 2 / 8 <= host.time + 0.5 + 2 * 2 / 8
    assert len(times) == 12
    assert 3 - 0.5 - 2 * 2 / 8 <= times[-1] <= 3  # as fast as it plays, and no slower


class TimedHost(Host):
    """Each chunk takes a tenth of a second, which has passed when the chunk before it is decoded, and not meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[float] = []  # when each chunk began
        self.decoded = threading.Semaphore(0)

    def boundary(self, session: sf_core.Session) -> sf_core.Session:
        self.begun.append(self.time)
        return super().boundary(session)

    def make(self, session: sf_core.Session, progress: Progress) -> tuple[sf_core.Session, Tensor]:
        assert not session.chunks or self.decoded.acquire(timeout=60)
        self.time += 0.1
        return super().make(session, progress)

    def shown(self, event: StreamEvent) -> None:
        super().shown(event)
        self.decoded.release()


@pytest.mark.parametrize("overlap", [True, False])
def test_just_in_time_a_chunk_begins_soon_before_it_is_due_and_is_never_late(overlap: bool) -> None:
    host = TimedHost()
    list(stream(start(), Decoder(), 3, 8, commands=put(), ahead=1.0, host=host, overlap=overlap, just_in_time=True))
    due = [host.begun[0] + 0.1 + chunk * 2 / 8 for chunk in range(12)]  # when the video before it has been played
    left = [at - began for at, began in zip(due, host.begun, strict=True)]
    assert all(0.1 <= seconds < 0.2 for seconds in left[2:]), left  # before that none was timed


def test_a_stream_that_waits_for_its_viewer_obeys() -> None:
    line = put()
    host = Host(at={0.3: lambda: line.put(Stop())})
    events = list(stream(start(), Decoder(), fps=0.1, commands=line, ahead=1.0, host=host))
    assert host.time < 0.4
    assert len(events) <= 2


@pytest.mark.parametrize("paused", [True, False])
def test_a_stream_that_waits_is_cancelled(paused: bool) -> None:
    cancellation = Cancellation()
    host = Host(cancellation, at={0.3: cancellation.cancel})
    line = put(Pause()) if paused else put()
    events = list(stream(start(), Decoder(), fps=0.1, commands=line, ahead=1.0, host=host))
    assert host.time < 0.4
    assert [event.chunk for event in events] == host.seen


def test_a_decoder_that_jumps_is_given_the_history_it_needs() -> None:
    decoder = Decoder()
    list(stream(plain(start(), 3), decoder, seconds=0.5, fps=16))
    assert decoder.calls == [(6, 2), (8, 0), (10, 0), (12, 0)]
    early = Decoder()
    early.history = 20
    list(stream(plain(start(), 2), early, seconds=0.25, fps=16))
    assert early.calls[0] == (4, 4)


def test_a_decoder_that_stands_there_in_another_video_starts_anew() -> None:
    decoder = Decoder()
    list(stream(start(), decoder, seconds=0.5, fps=16))
    decoder.calls.clear()
    list(stream(plain(start(seed=1), 4), decoder, seconds=0.1, fps=16))
    assert decoder.calls == [(8, 2)]


def test_an_error_comes_after_what_was_made_before_it() -> None:
    class Broken:
        def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
            return torch.full(shape, float("nan") if chunk == 3 else 0.1)

    session = sf_core.Session.start(MODEL, prompt(0), SIZE, CONFIG, noise=Broken())
    got: list[int] = []
    with pytest.raises(FloatingPointError, match="chunk 3"):
        got.extend(event.chunk for event in stream(session, Decoder()))
    assert got == [0, 1, 2]


class Breaks(Decoder):
    """Fails at the fifth chunk."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        if at == 8:
            raise self.error
        return super().__call__(latents, at, history)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("hold_back", [0, 1, 3])
def test_an_error_of_the_decoder_comes_after_all_that_it_had_decoded(hold_back: int, overlap: bool) -> None:
    got: list[int] = []
    host = Host()
    events = stream(start(), Breaks(OSError("the fifth")), 20, 1, hold_back=hold_back, overlap=overlap, host=host)
    with pytest.raises(OSError, match="fifth"):
        got.extend(event.chunk for event in events)
    assert got == host.seen == [0, 1, 2, 3]


@pytest.mark.parametrize("overlap", [True, False])
def test_an_error_between_chunks_comes_after_what_was_made_before_it(overlap: bool) -> None:
    class Fails(Host):
        def boundary(self, session: sf_core.Session) -> sf_core.Session:
            if session.chunks == 3:
                raise MemoryError("no room")
            return session

    got: list[int] = []
    with pytest.raises(MemoryError, match="no room"):
        got.extend(event.chunk for event in stream(start(), Decoder(), hold_back=2, overlap=overlap, host=Fails()))
    assert got == [0, 1, 2]


class HostError(BaseException):
    """An interrupt of a program that has an exception of its own for it."""


class HostCancellation(Cancellation):
    error = HostError


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("where", ["make", "boundary", "decoder"])
def test_an_interrupt_anywhere_ends_the_stream_quietly_and_keeps_what_was_decoded(where: str, overlap: bool) -> None:
    """The one who owns the cancellation raises it; the stream does not raise the same click a second way."""

    class Interrupted(Host):
        def make(self, session: sf_core.Session, progress: Progress) -> tuple[sf_core.Session, Tensor]:
            if where == "make" and session.chunks == 4:
                raise HostError
            return session.next_chunk(progress)

        def boundary(self, session: sf_core.Session) -> sf_core.Session:
            if where == "boundary" and session.chunks == 4:
                raise HostError
            return session

    host = Interrupted(HostCancellation())
    decoder = Breaks(HostError()) if where == "decoder" else Decoder()
    assert [event.chunk for event in stream(start(), decoder, hold_back=1, overlap=overlap, host=host)] == [0, 1, 2, 3]
    with pytest.raises(HostError):
        host.cancellation.raise_if_asked()


def test_an_interrupt_in_the_worker_reaches_the_decoder_before_its_next_layer() -> None:
    """The worker's layer raises while the decoder is in the middle of a chunk."""
    raised = threading.Event()

    class Interrupted(Host):
        def make(self, session: sf_core.Session, progress: Progress) -> tuple[sf_core.Session, Tensor]:
            if session.chunks < 2:
                return session.next_chunk(progress)
            raised.set()
            raise HostError

    class Polls(Decoder):
        layers = 0

        def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
            if at < 2:
                return super().__call__(latents, at, history)
            assert raised.wait(10)
            while not host.cancellation.asked and self.layers < 10_000:
                self.layers += 1
                threading.Event().wait(0.001)
            host.cancellation.raise_if_asked()
            raise AssertionError("not reached: the interrupt was not seen")

    host = Interrupted(HostCancellation())
    assert [event.chunk for event in stream(start(), Polls(), host=host)] == [0]


def test_leaving_the_loop_ends_the_worker() -> None:
    before = threading.active_count()
    for event in stream(start(), Decoder()):
        if event.chunk == 2:
            break
    del event
    events: Iterator[StreamEvent] = stream(start(), Decoder())
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_leaving_the_loop_gives_up_the_chunk_in_progress() -> None:
    passes = 0

    class Counts(Host):
        def make(self, session: sf_core.Session, progress: Progress) -> tuple[sf_core.Session, Tensor]:
            def counted(stage: str, index: int, count: int) -> None:
                nonlocal passes
                if session.chunks == 1:
                    assert left.wait(10)
                    cancelled.wait(10)
                progress(stage, index, count)
                passes += session.chunks == 1

            return session.next_chunk(counted)

    class Told(Cancellation):
        def cancel(self) -> None:
            super().cancel()
            cancelled.set()

    left, cancelled = threading.Event(), threading.Event()
    events = stream(start(), Decoder(), host=Counts(Told()))
    next(events)
    left.set()
    events.close()
    assert passes == 0


@pytest.mark.parametrize("overlap", [True, False])
def test_the_boundary_runs_in_the_callers_thread(overlap: bool) -> None:
    threads = set()

    class Looks(Host):
        def boundary(self, session: sf_core.Session) -> sf_core.Session:
            threads.add(threading.get_ident())
            return session

    list(stream(start(), Decoder(), seconds=0.5, fps=16, host=Looks(), overlap=overlap))
    assert threads == {threading.get_ident()}


def test_without_overlap_a_chunk_is_handed_out_before_the_next_is_begun() -> None:
    made: list[int] = []

    class Notes(Host):
        def make(self, session: sf_core.Session, progress: Progress) -> tuple[sf_core.Session, Tensor]:
            made.append(session.chunks)
            return session.next_chunk(progress)

    for event in stream(start(), Decoder(), seconds=0.5, fps=16, host=Notes(), overlap=False):
        assert made == list(range(event.chunk + 1))


def test_frames_become_bytes_once_and_as_a_file_has_them() -> None:
    (event,) = stream(start(), Decoder(), seconds=0.1, fps=16)
    assert event.pixels.dtype == torch.uint8
    assert event.pixels is event.pixels
    assert torch.equal(event.pixels, to_bytes(event.frames))
    assert to_bytes(event.pixels) is event.pixels


def test_stop_and_a_host_are_not_given_together() -> None:
    with pytest.raises(ValueError, match="'stop' or 'host'"):
        stream(start(), Decoder(), stop=lambda: False, host=Host())


@pytest.mark.parametrize("seconds", [0.01, 0.3, 0.56, 0.57, 1.0, 1.4, 2.0])
@pytest.mark.parametrize("temporal_factor", [1, 4])
@pytest.mark.parametrize("first", [None, 1])
@pytest.mark.parametrize("begun", [0, 1])
def test_the_number_of_chunks_is_known_before(
    seconds: float, temporal_factor: int, first: int | None, begun: int
) -> None:
    decoder = Decoder()
    decoder.temporal_factor = temporal_factor
    config = replace(CONFIG, first_chunk_frames=first)
    session = plain(sf_core.Session.start(MODEL, prompt(0), SIZE, config), begun)
    events = list(stream(session, decoder, seconds=seconds, fps=16))
    assert len(events) == chunks_for(session, seconds, 16, temporal_factor)


def test_the_tiny_model_streams() -> None:
    session = sf_core.Session.start(tiny.load_transformer(), tiny.load_text().encode(tiny.PROMPT))
    events = list(sf_core.stream(session, tiny.load_vae().stream_decoder(), seconds=1, fps=16))
    assert sum(event.frames.shape[1] for event in events) == 21
    assert all(event.frames.shape[2:] == (64, 64, 3) for event in events)
