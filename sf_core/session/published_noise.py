"""The noise of a published video: drawn as the authors' scripts draw it, from their seed; see draw_orders.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import MAX_WINDOW_FRAMES, RolloutConfig
from ..noise import MAX_SEED, NoiseSource
from .draw_orders import ORDERS, Address, Clip, Draw, order_for
from .record import SessionRecord

AS_PUBLISHED = "as published"
PER_CHUNK = "per chunk"  # `SeededNoise`
NOISES = (PER_CHUNK, AS_PUBLISHED)
PUBLISHED_FRAMES = 21  # latent frames of the videos of most scripts
MOST_FRAMES = MAX_WINDOW_FRAMES
SOURCE_AND_PUBLISHED = (
    f"noise {AS_PUBLISHED!r} is for a video that is made from noise alone: a chunk with a source takes other draws. "
    "Leave one of the two out"
)


class PublishedNoise:
    """The noise that the authors' script draws for the first video of a run with this seed.

    A draw depends on all before it, so it is only the same video if all of it is: seed, length, size, batch and the
    device that draws. But noise depends on its address alone: what comes before is drawn again where need be.

    Attributes:
        seed: The script's seed.
        clip: The video.
        order: The script's order, a key of `ORDERS`.
        drawn_by: The kind of device whose draws these are; see `drawn_by`.
    """

    def __init__(
        self,
        seed: int,
        frames: tuple[int, ...],
        steps: tuple[int, ...],
        frame_shape: tuple[int, int, int],
        batch: int = 1,
        device: torch.device | str = "cpu",
        order: str = "self-forcing",
        given: int = 0,
        drawn_by: str | None = None,
    ) -> None:
        """Describe the clip; nothing is drawn yet.

        Args:
            seed: The script's seed.
            frames: Latent frames of each sampled chunk.
            steps: Denoising steps of each sampled chunk.
            frame_shape: Channels, height and width of a latent frame.
            batch: Number of videos that are made together (``num_samples``).
            device: Where the script draws.
            order: A key of `ORDERS`.
            given: Latent frames before the first sampled chunk.
            drawn_by: The kind of device that has to draw. None: ``device``.

        Raises:
            ValueError: The seed is out of range.
        """
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed is {seed}; expected a whole number from 0 to {MAX_SEED}")
        self.seed, self.clip, self.order = seed, Clip(frames, steps, frame_shape, batch, given), order
        self._device = torch.device(device)
        self.drawn_by = _kind_of(self._device) if drawn_by is None else drawn_by
        self._lock = threading.Lock()
        self._draws: Iterator[Draw] | None = None  # those to come
        self._clips = list[tuple[Draw, Tensor]]()  # those for all chunks
        self._newest: tuple[Draw, Tensor] | None = None  # of the others
        self._turn: tuple[int, ...] = ()

    @staticmethod
    def of(session: SessionRecord, seed: int, frames: int, given: int | None = None) -> PublishedNoise:
        """Describe the noise of a session whose video ends after ``frames`` latent frames.

        Args:
            session: The session before its first sampled chunk.
            seed: The script's seed.
            frames: Latent frames of the whole video, given ones included; 21 in most scripts.
            given: Latent frames before the first sampled chunk. None: those that the session has.

        Raises:
            ValueError: No script makes such a video from a seed, or the count does not cut into chunks.
        """
        if session.chunks:
            raise ValueError(
                f"noise {AS_PUBLISHED!r} begins with a video's first chunk; this session has {session.chunks}"
            )
        given = session.frames if given is None else given
        config = session.config
        config.check_frames(frames)
        if frames > MOST_FRAMES:
            raise ValueError(f"noise {AS_PUBLISHED!r} is drawn for at most {MOST_FRAMES} latent frames, here {frames}")
        if frames <= given:
            raise ValueError(f"the video is to have {frames} latent frames and was given {given}: none is drawn")
        clip = _clip_of(config, (session.model.arch.in_dim, *session.latent_size), session.batch, frames, given)
        try:
            order = order_for(config, clip)
        except ValueError as error:
            raise ValueError(f"noise {AS_PUBLISHED!r}: {error}. Or leave the noise as it is") from None
        return PublishedNoise(
            seed, clip.frames, clip.steps, clip.frame_shape, clip.batch, session.model.device, order, given
        )

    @staticmethod
    def from_record(
        facts: Mapping[str, Any],
        config: RolloutConfig,
        frame_shape: tuple[int, int, int],
        batch: int,
        device: torch.device,
    ) -> PublishedNoise:
        """Return the noise of a session file from what `record` says, drawn on ``device`` if that is of the kind."""
        clip = _clip_of(config, frame_shape, batch, facts["frames"], facts["given"])
        kind = facts["drawn_by"].partition(" ")[0]
        return PublishedNoise(
            facts["seed"],
            clip.frames,
            clip.steps,
            frame_shape,
            batch,
            device if device.type == kind else kind,
            facts["order"],
            clip.given,
            facts["drawn_by"],
        )

    @property
    def record(self) -> dict[str, Any]:
        """What a session's file says of it; the rest follows from the file's settings."""
        return {
            "source": AS_PUBLISHED,
            "seed": self.seed,
            "frames": self.frames,
            "given": self.clip.given,
            "order": self.order,
            "drawn_by": self.drawn_by,
        }

    @property
    def frames(self) -> int:
        """Latent frames of the whole video, given ones included."""
        return self.clip.given + self.clip.sampled

    @property
    def chunks(self) -> int:
        """Sampled chunks of the whole video."""
        return len(self.clip.frames)

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """The noise of a chunk and a step.

        Raises:
            ValueError: The clip that was drawn has no such chunk, or this device draws other numbers.
        """
        self.check_chunk(chunk)
        if step >= self.clip.steps[chunk]:
            steps = self.clip.steps[chunk]
            raise ValueError(f"chunk {chunk} has {steps} steps, and the noise before step {step} was asked for")
        with self._lock:
            return self._at((chunk, step)).float()

    def check_chunk(self, chunk: int) -> None:
        """Raise ValueError if the clip ends before ``chunk``."""
        if chunk >= self.chunks:
            raise ValueError(
                f"noise {AS_PUBLISHED!r} was drawn for a video of {self.frames} latent frames, which is at its end: "
                "the authors' script draws the whole clip first. Begin anew with a longer one, or set another seed "
                "(in ComfyUI: Rewind by 0 chunks) and go on with the pack's own noise"
            )

    def _at(self, address: Address) -> Tensor:
        """Return the noise of an address; all draws before it are made."""
        order = ORDERS[self.order]
        if (kept := self._kept_part(address)) is not None:
            return kept
        if self._draws is None or (self._newest is not None and order.turn(address) < self._turn):
            self._begin()
        assert self._draws is not None
        for draw in self._draws:
            drawn = torch.randn(draw.shape, generator=self._generator, device=self._device, dtype=order.dtype)
            if draw.for_all:
                self._clips.append((draw, drawn.cpu()))  # may be long, and is read a chunk at a time
            else:
                self._newest, self._turn = (draw, drawn), order.turn(next(iter(draw.parts)))
            if address in draw.parts:
                return draw.parts[address](drawn)
        raise ValueError(f"the script draws no noise for step {address[1]} of chunk {address[0]}")

    def _kept_part(self, address: Address) -> Tensor | None:
        for draw, drawn in (*self._clips, *([] if self._newest is None else [self._newest])):
            if address in draw.parts:
                return draw.parts[address](drawn)
        return None

    def _begin(self) -> None:
        """Seed the generator, before the first draw."""
        kind = _kind_of(self._device)
        if kind != self.drawn_by:
            raise ValueError(
                f"noise {AS_PUBLISHED!r} of this session was drawn by {self.drawn_by}, and here is {kind}, which draws "
                "other numbers from the same seed: go on there, or set another seed (in ComfyUI: Rewind by 0 "
                "chunks) and go on with the pack's own noise"
            )
        self._generator = torch.Generator(self._device).manual_seed(self.seed)
        self._draws, self._clips, self._newest = ORDERS[self.order].draws(self.clip), [], None


def check_noise(session: SessionRecord, noise: NoiseSource) -> None:
    """Check that a noise source can be a session's from its next chunk on.

    Raises:
        ValueError: It is a `PublishedNoise` of another video, or the next chunk has a source.
    """
    if not isinstance(noise, PublishedNoise):
        return
    if session.source is not None:
        raise ValueError(SOURCE_AND_PUBLISHED)
    own = PublishedNoise.of(session, noise.seed, noise.frames)
    if own.clip != noise.clip or own.order != noise.order:
        raise ValueError(
            f"noise {AS_PUBLISHED!r} is of another video than this session's ({noise.order}, {noise.clip}; expected "
            f"{own.order}, {own.clip}): make it with PublishedNoise.of this session"
        )


def check_noise_left(session: SessionRecord) -> None:
    """Raise ValueError if the session's noise ends before its next chunk."""
    if isinstance(session.noise, PublishedNoise):
        session.noise.check_chunk(session.chunks)


def check_length(session: SessionRecord, chunks: int) -> None:
    """Check before a run that the session's noise suffices for it.

    Args:
        session: The session to extend.
        chunks: Number of chunks to make; 0: without an end.

    Raises:
        ValueError: It does not; the message says for how many it does.
    """
    left = chunks_left(session)
    if left is None or 0 < chunks <= left:
        return
    check_noise_left(session)
    assert isinstance(session.noise, PublishedNoise)
    asked = f"the {chunks} that this run is to make" if chunks else "a run without an end"
    raise ValueError(
        f"noise {AS_PUBLISHED!r} was drawn for a video of {session.noise.frames} latent frames, which has {left} "
        f"chunks to go, too few for {asked}. Make a shorter run, or begin anew with a longer clip"
    )


def chunks_left(session: SessionRecord) -> int | None:
    """Return the number of chunks that the session's noise has left; None: it has no end."""
    return max(0, session.noise.chunks - session.chunks) if isinstance(session.noise, PublishedNoise) else None


def _clip_of(config: RolloutConfig, frame_shape: tuple[int, int, int], batch: int, frames: int, given: int) -> Clip:
    """Return the clip of a video of ``frames`` latent frames, the first of them ``given``."""
    lengths, steps, at = list[int](), list[int](), given
    while at < frames:
        lengths.append(config.frames_of_block(at))
        steps.append(len(config.timesteps(len(steps))))
        at += lengths[-1]
    return Clip(tuple(lengths), tuple(steps), frame_shape, batch, given)


def _kind_of(device: torch.device) -> str:
    """Name the devices that draw the same numbers from a seed as ``device``.

    A CUDA GPU shares a large draw out among as many threads as it can run, so this number decides who draws what.
    """
    if device.type != "cuda":
        return device.type
    if not torch.cuda.is_available():
        return "no CUDA GPU"
    facts = torch.cuda.get_device_properties(device)
    return f"cuda ({facts.multi_processor_count} x {facts.max_threads_per_multi_processor} threads)"
