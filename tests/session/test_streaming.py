"""The stream hands out what a plain loop would make, in time, and obeys between chunks."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sf_core
from sf_core import tiny
from sf_core.session.commands import Command, Cut, NewSeed, Pause, ReRoll, Resume, Stop, SwitchPrompt
from sf_core.session.session import Progress
from sf_core.session.streaming import StreamEvent, chunks_for, stream
from tests.helpers import SIZE, prompt, random_model

MODEL = random_model(layers=2)
CONFIG = sf_core.RolloutConfig(chunk_frames=2, window_frames=6, denoising_steps=(1000, 500))


class Decoder:
    """Each latent frame becomes one grey frame; remembers two latents, and how it was called."""

    history = 2
    temporal_factor = 1
    cache_bytes = 0

    def __init__(self, delay: float = 0.0) -> None:
        self.at: int | None = 0
        self.calls: list[tuple[int, int]] = []  # at, frames of history
        self.delay = delay

    def reset(self) -> None:
        self.at = 0

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        time.sleep(self.delay)
        self.calls.append((at, 0 if history is None else history.shape[2]))
        self.at = at + latents.shape[2]
        return latents.mean(dim=1).unsqueeze(-1).expand(-1, -1, -1, -1, 3)


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


def test_commands_are_applied_between_chunks_and_recorded() -> None:
    line = put()
    events = []
    for event in stream(start(), Decoder(), seconds=1.5, fps=16, commands=line):
        events.append(event)
        if event.chunk == 2:
            line.put(SwitchPrompt(prompt(1), recache=True))
            line.put(NewSeed(9))
        if event.chunk == 6:
            line.put(Cut())
    at = {type(c).__name__: e.chunk for e in events for c in e.commands}
    assert 3 <= at["SwitchPrompt"] == at["NewSeed"] <= 5
    expected = plain(start(), at["NewSeed"]).with_prompt(prompt(1), recache=True).with_seed(9)
    expected = plain(plain(expected, at["Cut"] - at["NewSeed"]).with_cut(), 12 - at["Cut"])
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


def test_a_pause_hands_out_what_is_made_and_samples_nothing_until_resume() -> None:
    line = put(Pause())
    resumed = threading.Timer(0.3, lambda: line.put(Resume()))
    resumed.start()
    begun = time.perf_counter()
    events = list(stream(start(), Decoder(), seconds=0.25, fps=16, commands=line))
    assert time.perf_counter() - begun >= 0.3
    assert len(events) == 2


def test_a_re_roll_replaces_what_has_not_been_handed_out() -> None:
    line = put()
    shown: list[int] = []
    taken_back: list[int] = []
    final: list[sf_core.Session] = []
    for event in stream(
        start(),
        Decoder(),
        seconds=1,
        fps=16,
        commands=line,
        hold_back=1,
        preview=lambda event: shown.append(event.chunk),
        withdrawn=lambda session: taken_back.append(session.chunks),
    ):
        final.append(event.session)
        if event.chunk == 2 and not any(type(c) is ReRoll for c in event.commands):
            line.put(ReRoll(77))
    assert [session.chunks for session in final] == list(range(1, 9))  # each chunk handed out once, in order
    (back,) = taken_back
    assert shown == [*range(shown.index(back) + 1), *range(back, 8)]  # but shown again after the re-roll
    first_new = next(i for i, session in enumerate(final) if session.noise == sf_core.SeededNoise(77))
    expected = plain(plain(start(), first_new).with_seed(77), 8 - first_new)
    assert torch.equal(final[-1].latents, expected.latents)


def test_a_watched_stream_makes_no_more_than_plays() -> None:
    """8 frames a second, chunks of 2: never more than the time that passed, what may be ahead, and a chunk."""
    begun = None
    for made, event in enumerate(stream(start(), Decoder(), seconds=1.5, fps=8, commands=put(), ahead=0.5), 1):
        begun = begun or time.perf_counter()
        assert made * 2 / 8 <= time.perf_counter() - begun + 0.5 + 3 * 2 / 8, event.chunk
    assert begun is not None
    assert 0.2 <= time.perf_counter() - begun <= 1.5


def test_a_stream_that_waits_for_its_watcher_obeys_at_once() -> None:
    line = put()
    ended = threading.Timer(0.3, lambda: line.put(Stop()))
    ended.start()
    begun = time.perf_counter()
    events = list(stream(start(), Decoder(), fps=0.1, commands=line, ahead=1.0))
    assert time.perf_counter() - begun < 5
    assert len(events) <= 2


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


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("hold_back", [0, 1, 3])
def test_an_error_of_the_decoder_comes_after_all_that_it_had_decoded(hold_back: int, overlap: bool) -> None:
    class Breaks(Decoder):
        def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
            if at == 8:
                raise OSError("the fifth chunk")
            return super().__call__(latents, at, history)

    got: list[int] = []
    shown: list[int] = []
    events = stream(
        start(), Breaks(), 20, 1, hold_back=hold_back, overlap=overlap, preview=lambda event: shown.append(event.chunk)
    )
    with pytest.raises(OSError, match="fifth"):
        got.extend(event.chunk for event in events)
    assert got == shown == [0, 1, 2, 3]


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


@pytest.mark.parametrize("overlap", [True, False])
def test_the_boundary_runs_in_the_callers_thread_and_may_change_the_session(overlap: bool) -> None:
    threads = set()

    def boundary(session: sf_core.Session) -> sf_core.Session:
        threads.add(threading.get_ident())
        return session.with_seed(7) if session.chunks == 1 else session

    events = list(stream(start(), Decoder(), seconds=0.5, fps=16, boundary=boundary, overlap=overlap))
    assert threads == {threading.get_ident()}
    by_hand, _ = start().next_chunk()
    by_hand = by_hand.with_seed(7)
    while by_hand.chunks < len(events):
        by_hand, _ = by_hand.next_chunk()
    assert torch.equal(events[-1].session.latents, by_hand.latents)


def test_without_overlap_a_chunk_is_handed_out_before_the_next_is_begun() -> None:
    made: list[int] = []

    def make(session: sf_core.Session, progress: Progress) -> tuple[sf_core.Session, torch.Tensor]:
        made.append(session.chunks)
        return session.next_chunk(progress)

    for event in stream(start(), Decoder(), seconds=0.5, fps=16, make=make, overlap=False):
        assert made == list(range(event.chunk + 1))


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
