"""Video to video: what a stream of frames gives to a session, chunk by chunk."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sf_core
from sf_core import ReRoll, tiny
from sf_core.session.commands import Command
from sf_core.session.stream_host import StreamHost
from sf_core.sources.clip import ClipFrames, PictureClip
from sf_core.sources.file_clip import FileClip
from sf_core.sources.video_source import KEPT, VideoSource
from sf_core.tiny.world import Scene
from sf_core.vae.taehv import load_taehv
from sf_core.vae.video_vae import VideoVAE
from tests.files.test_clips import brightness, grey, write
from tests.vae.networks import taehv_state

MODEL, VAE = tiny.load_transformer(), tiny.load_vae()
BLUE = tiny.load_text().encode("a blue square")
RED = Scene("red", "circle", "right", "slowly", "black", (20.0, 30.0), 12.5)


def session(seed: int = 0) -> sf_core.Session:
    return sf_core.Session.start(MODEL, BLUE, seed=seed)


def source(frames: Tensor, at_end: str = "hold", vae: VideoVAE = VAE, strength: float = 0.5) -> VideoSource:
    return VideoSource(ClipFrames(PictureClip(frames), at_end), vae, strength)


def chunks(begin: sf_core.Session, feed: VideoSource, count: int) -> sf_core.Session:
    for _ in range(count):
        begin = feed.give(begin).next_chunk()[0]
    return begin


def sources_of(made: sf_core.Session) -> Tensor:
    """The latents that the chunks of a session were made from."""
    given = [block.source for block in made.blocks]
    return torch.cat([one.latents.get() for one in given if one is not None], dim=2)


def untouched(begin: sf_core.Session, feed: VideoSource, count: int) -> Tensor:
    """The sources of ``count`` chunks of strength 0, which are their sources."""
    feed.strength = 0.0
    return chunks(begin, feed, count).latents


@pytest.mark.parametrize("vae", [VAE, load_taehv(taehv_state())], ids=["wan", "taehv"])
def test_chunks_are_made_from_the_latents_of_the_whole_clip(vae: VideoVAE) -> None:
    frames = RED.render(33)
    assert torch.equal(untouched(session(), source(frames, vae=vae), 3), vae.encode(frames[None]))


def test_frame_k_of_the_source_goes_with_frame_k_of_the_video() -> None:
    """Also in a session that has begun, with a source of its own or without."""
    whole = VAE.encode(RED.render(33)[None])
    begun = session().next_chunk()[0]
    assert torch.equal(untouched(begun, source(RED.render(33)), 2)[:, :, 3:], whole[:, :, 3:])


@pytest.mark.parametrize(("at_end", "then"), [("hold", [8, 8, 8, 8]), ("loop", [0, 1, 2, 3])])
def test_behind_its_end_a_clip_holds_its_last_frame_or_begins_again(at_end: str, then: list[int]) -> None:
    frames = torch.arange(9).view(9, 1, 1, 1).expand(-1, 2, 2, 3)
    stream = ClipFrames(PictureClip(frames), at_end)
    assert stream.take(13)[:, 0, 0, 0].tolist() == [*range(9), *then]
    assert stream.length == 9
    assert not stream.ends_before(13)


@pytest.mark.parametrize(("frames", "expected"), [(1, 1), (9, 1), (10, 2), (21, 2), (22, 3)])
def test_with_stop_the_stream_ends_after_the_chunk_that_has_the_last_frame(frames: int, expected: int) -> None:
    feed = source(RED.render(frames), "stop", strength=0.0)
    events = list(sf_core.stream(session(), VAE.stream_decoder(), source=feed))
    assert len(events) == expected
    assert events[-1].session.frames == 3 * expected


def test_with_stop_a_source_that_was_over_before_gives_nothing() -> None:
    begun = session().next_chunk()[0].next_chunk()[0]
    assert source(RED.render(21), "stop").is_over(begun)
    assert not source(RED.render(22), "stop").is_over(begun)
    assert list(sf_core.stream(begun, VAE.stream_decoder(), source=source(RED.render(5), "stop"))) == []


@pytest.mark.parametrize("overlap", [True, False])
def test_a_stream_makes_what_a_plain_loop_makes(overlap: bool) -> None:
    frames = RED.render(33)
    events = list(sf_core.stream(session(), VAE.stream_decoder(), 33 / 16, overlap=overlap, source=source(frames)))
    expected = chunks(session(), source(frames), 3)
    assert torch.equal(events[-1].session.latents, expected.latents)
    assert torch.equal(sources_of(expected), VAE.encode(frames[None]))


def test_a_re_rolled_chunk_has_the_same_source_and_other_noise() -> None:
    frames, commands = RED.render(33), queue.SimpleQueue[Command]()

    class Host(StreamHost):
        def boundary(self, session: sf_core.Session) -> sf_core.Session:
            if session.chunks == 2 and session.noise == sf_core.SeededNoise(0):
                commands.put(ReRoll(5))
            return session

    feed = source(frames)
    events = list(
        sf_core.stream(
            session(), VAE.stream_decoder(), 33 / 16, commands=commands, hold_back=1, host=Host(), source=feed
        )
    )
    made = events[-1].session
    assert [event.chunk for event in events] == [0, 1, 2]
    assert made.blocks[-1].noise == sf_core.SeededNoise(5)
    assert torch.equal(sources_of(made), VAE.encode(frames[None]))


def test_far_back_the_clip_is_read_again() -> None:
    frames = RED.render(17)
    feed = source(frames, "loop", strength=0.0)
    long = chunks(session(), feed, KEPT + 2)
    again = chunks(long.rewind(KEPT + 2), feed, KEPT + 2)
    assert torch.equal(long.latents, again.latents)


def test_the_strength_is_that_of_the_chunk_it_was_set_before() -> None:
    feed, made = source(RED.render(33)), session()
    for strength in (0.0, 1.0, 0.25):
        feed.strength = strength
        made = chunks(made, feed, 1)
    recorded = [block.source for block in made.blocks]
    assert [one.strength for one in recorded if one is not None] == [0.0, 1.0, 0.25]


def test_a_saved_session_makes_its_chunks_again(tmp_path: Path) -> None:
    made = chunks(session(), source(RED.render(21)), 2)
    made.save(tmp_path / "s")
    loaded = sf_core.Session.load(tmp_path / "s", MODEL)
    assert torch.equal(loaded.rewind(1).next_chunk()[1], made.latents[:, :, 3:])


class Camera:
    """Frames that no one can take twice."""

    live = True

    def __init__(self) -> None:
        self.taken = 0

    def restart(self) -> None:
        """There is no way back."""

    def take(self, count: int) -> Tensor:
        self.taken += count
        return RED.render(self.taken)[-count:]

    def ends_before(self, frame: int) -> bool:
        return False


def test_a_chunk_of_a_camera_is_made_again_from_the_frames_it_was_made_from() -> None:
    made = chunks(session(), VideoSource(Camera(), VAE), 3)
    assert torch.equal(sources_of(made), VAE.encode(RED.render(33)[None]))
    other = VideoSource(Camera(), VAE)
    assert torch.equal(other.give(made.rewind(1)).next_chunk()[1], made.latents[:, :, 6:])


def test_no_frames_of_a_camera_are_taken_ahead() -> None:
    camera = Camera()
    feed = VideoSource(camera, VAE)
    for _ in sf_core.stream(session(), VAE.stream_decoder(), 21 / 16, source=feed):
        pass
    assert camera.taken == 21


def test_a_camera_in_a_session_that_has_begun_warms_up_with_one_frame() -> None:
    camera = Camera()
    made = chunks(session().next_chunk()[0], VideoSource(camera, VAE), 1)
    assert camera.taken == 13
    assert torch.equal(sources_of(made), VAE.encode(RED.render(13)[None])[:, :, 1:])


def test_a_file_is_read_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", grey(8), [index / 8 for index in range(8)])
    clip = FileClip(path, (32, 48), 16)
    assert brightness(torch.stack(list(clip.frames()))) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7]
    part = FileClip(path, (32, 48), 8, start=0.25, duration=0.5)
    assert brightness(torch.stack(list(part.frames()))) == [2, 3, 4, 5]


def test_pictures_with_a_rate_are_shown_at_it() -> None:
    pictures = torch.arange(4).view(4, 1, 1, 1)
    assert [int(one) for one in PictureClip(pictures, rate=8, fps=16).frames()] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [int(one) for one in PictureClip(pictures, rate=32, fps=16).frames()] == [0, 2]


def test_a_clip_that_cannot_be_read_on_ends_the_stream_after_the_chunks_before_it() -> None:
    class Damaged:
        def frames(self) -> Iterator[Tensor]:
            yield from RED.render(15)
            raise ValueError("the clip is damaged")

    stream = sf_core.stream(session(), VAE.stream_decoder(), 5, source=VideoSource(ClipFrames(Damaged()), VAE))
    assert next(stream).chunk == 0
    with pytest.raises(ValueError, match="the clip is damaged"):
        next(stream)


class Empty:
    def frames(self) -> Iterator[Tensor]:
        return iter(())


def test_what_gives_no_source_is_refused_in_words() -> None:
    decoder_only = {name: value for name, value in taehv_state().items() if name.startswith("decoder")}
    with pytest.raises(ValueError, match="TAEHV without an encoder"):
        source(RED.render(1), vae=load_taehv(decoder_only))
    with pytest.raises(ValueError, match="expected one of hold, loop, stop"):
        ClipFrames(PictureClip(RED.render(1)), "later")
    with pytest.raises(ValueError, match="the source has no frames"):
        ClipFrames(Empty())
    rolling = sf_core.RolloutConfig(schedule="rolling", window_frames=21)
    with pytest.raises(ValueError, match="take settings with schedule='chunk'"):
        source(RED.render(9)).give(sf_core.Session.start(MODEL, BLUE, config=rolling))


@pytest.mark.parametrize("fails", ["frames", "encoder"])
def test_a_failure_while_a_chunk_is_encoded_moves_no_frame(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source goes on where it was: a run after an interrupt, or after memory ran out, is the one without it."""
    frames = RED.render(33)
    feed, left = source(frames), [2]
    begun = chunks(session(), feed, 1)
    kind, name = (ClipFrames, "_take_one") if fails == "frames" else (type(feed._encoder), "__call__")
    real = getattr(kind, name)

    def failing(self: object, *args: object) -> object:
        left[0] -= 1
        if fails == "encoder" or not left[0]:
            raise RuntimeError("as told by the test")
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(kind, name, failing)
        with pytest.raises(RuntimeError, match="as told"):
            feed.give(begun)
    assert torch.equal(sources_of(chunks(begun, feed, 2)), sources_of(chunks(session(), source(frames), 3)))


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0.0, -1.0, 1e-9])
def test_a_rate_that_is_none_is_named(rate: float) -> None:
    with pytest.raises(ValueError, match=r"the rate of the pictures is .*; expected a number from 0\.01 to 1,000"):
        PictureClip(RED.render(3), rate=rate)
    with pytest.raises(ValueError, match=r"fps is .*; expected more than 0: 1 to 240"):
        PictureClip(RED.render(3), rate=16, fps=rate)
