"""The shape of a cache: which latent frames a pass sees, which stay, and in which slot each of them is.

No tensor is here. kv_cache.py has the buffers that this describes. The slot of a frame is a function of its absolute
index, of the scene's first frame and of the ring's origin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..config import RolloutConfig
from .architecture import WanArchitecture
from .bank import BankRule
from .kv_formats import FORMATS
from .pins import Pin, ring_after
from .sight import RollingSight
from .sink import SinkRule, sink_rule

SINK_MEAN = torch.float32  # of an averaged sink: a thousandth of a bf16 number would be rounded away
FIRST_CAPACITY = 24  # frames that an unbounded ring holds before it grows
BLOCK_TOKENS = 4096  # of a quantised ring, decoded at a time


@dataclass(frozen=True, slots=True)
class Place:
    """Position of a pass in the video, in absolute latent frames.

    Attributes:
        start: First frame of the pass.
        frames: Number of frames.
        scene: First frame of the scene: 0, or the newest cut. The first frames of a scene are the sink.
        ring_origin: Frame f is in slot (f - ring_origin) % ring_frames of the ring. Older frames are not in the ring.
        offset: Added to the frames' own positions, for attention: shots jump by it.
        pin: The chunk of the newest shot, which stays in the ring.
        ring: Where shots are pinned: the frame in each slot of the ring before the pass, see pins.py.
    """

    start: int
    frames: int
    scene: int
    ring_origin: int
    offset: int = 0
    pin: Pin | None = None
    ring: tuple[int, ...] | None = None

    @property
    def positions(self) -> range:
        """The frames' positions for attention."""
        return range(self.start + self.offset, self.end + self.offset)

    @property
    def end(self) -> int:
        """The frame after the last one."""
        return self.start + self.frames


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass attends to besides its own frames: sink (turned by ``shift``), newest ring, and bank frames."""

    sink: int
    ring: int
    shift: int
    bank: int = 0


@dataclass(frozen=True, slots=True)
class Leaving:
    """Frames that leave the ring, one after another, and are averaged into the sink.

    Attributes:
        index: Index, within the pass that takes their place, of the frame that takes the first one's.
        slot: Slot of the first behind the front; -1: there is no ring, and they are frames of the pass.
        into: Frame of the sink that the first is averaged into.
        turn: Frames from their positions to those of the sink.
        count: Number of frames.
    """

    index: int
    slot: int
    into: int
    turn: int
    count: int


@dataclass(frozen=True)
class CacheShape:
    """Everything that decides the size of a cache and the slot of a frame in it."""

    layers: int
    batch: int
    heads: int
    head_dim: int
    frame_tokens: int
    front_frames: int
    sink_frames: int
    ring_frames: int | None  # None: unbounded
    sink_rule: SinkRule  # where attention sees the sink
    text_len: int
    dtype: torch.dtype
    device: torch.device
    window_frames: int | None = None  # that attention sees, chunk and sink included; None: all
    sink_average: float | None = None  # weight of the sink in its average with what leaves the ring; None: it stays
    recomputed: bool = False  # the ring is written anew before each chunk, from the newest frames alone
    bank: BankRule | None = None  # frames that stay after they left the window; None: there is no bank
    sight: RollingSight | None = None  # what passes of a rolling schedule see; None: all that there is
    pins: bool = False  # the newest shot's first chunk stays in the ring
    kv_dtype: str | None = None  # format of the ring, see kv_formats.py; None: ``dtype``
    wide_frames: int = 0  # of the largest pass, where passes are wide ones

    @staticmethod
    def of(
        config: RolloutConfig,
        arch: WanArchitecture,
        latent_size: tuple[int, int],
        batch: int,
        text_len: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> CacheShape:
        """The shape for rollout settings over a model's layers.

        Raises:
            ValueError: The device does not have the number format of ``kv_dtype``.
        """
        if config.kv_dtype == "fp8" and device.type == "mps":
            raise ValueError(
                "kv_dtype='fp8' needs 8-bit floats, which Apple GPUs do not have: take 'int8', which is as small"
            )
        rows, columns = arch.token_grid(latent_size)
        rolling, sight, bank = config.schedule == "rolling", None, None
        if rolling:
            assert config.window_frames is not None
            sight = RollingSight(config.window_frames, config.chunk_frames, config.sink_frames)
        if config.memory_frames:
            bank = BankRule(config.memory_frames, config.memory_interval, config.chunk_frames)
        return CacheShape(
            layers=arch.num_layers,
            batch=batch,
            heads=arch.num_heads,
            head_dim=arch.head_dim,
            frame_tokens=rows * columns,
            front_frames=0 if rolling or bank else config.front_frames,  # their passes are wide ones
            sink_frames=config.sink_frames,
            ring_frames=config.ring_frames,
            sink_rule=sink_rule("clamped" if rolling else config.sink_position, config.trained_frames),
            text_len=text_len,
            dtype=dtype,
            device=device,
            window_frames=config.window_frames,
            sink_average=config.sink_average,
            recomputed=config.context == "recompute",
            bank=bank,
            sight=sight,
            pins=config.pin_shots,
            kv_dtype=config.kv_dtype,
            wide_frames=config.wide_frames,
        )

    def history(self, place: Place) -> tuple[int, int]:
        """The numbers of sink frames and ring frames that the pass at ``place`` attends to."""
        sink = min(self.sink_frames, place.start - place.scene)
        if place.ring is not None:
            return sink, len(place.ring)
        ring = max(0, place.start - place.ring_origin)
        return sink, ring if self.ring_frames is None else min(ring, self.ring_frames)

    @property
    def sink_moves(self) -> bool:
        """Whether the sink may be seen at another position than its own."""
        return self.sink_frames > 0 and self.sink_rule.moves

    def seen(self, place: Place, in_flight: bool = False) -> Seen:
        """What a pass at ``place`` attends to: one that writes the cache, or one over chunks ``in_flight``."""
        sink, ring = self.history(place)
        if self.sight is None:
            bank = 0 if self.bank is None else self.bank.filled(place.start, place.scene)
            return Seen(sink, ring, self.sink_shift(place), bank)
        if not in_flight:
            return Seen(*self.sight.of_write(place.frames, sink, ring), 0)
        sink, ring = self.sight.in_flight(place.frames, sink, ring)
        oldest = place.start - ring - place.scene
        shift = self.sink_rule.shift(self.sink_frames, oldest, place.end - place.scene) if self.sink_moves else 0
        return Seen(sink, ring, shift)

    @property
    def keeps_sink(self) -> bool:
        """Whether the sink is kept as it was written, beside where attention sees it."""
        return self.sink_moves or self.sink_average is not None

    def leaving(self, place: Place) -> list[Leaving]:
        """What leaves the ring, and is averaged into the sink, when the frames at ``place`` are stored."""
        ring, sink, runs = self.ring_frames, self.sink_frames, list[Leaving]()
        if self.sink_average is None or ring is None:
            return []
        for index, frame in enumerate(range(place.start, place.end)):
            gone = frame - ring
            if gone < max(place.ring_origin, place.scene + sink):
                continue
            slot = sink + (gone - place.ring_origin) % ring if ring else -1
            into = (gone - place.scene) % sink
            last = runs[-1] if runs else None
            beside = (index, slot if slot < 0 else slot - last.count, into - last.count) if last else None
            if last and beside == (last.index + last.count, last.slot, last.into):
                runs[-1] = replace(last, count=last.count + 1)
            else:
                runs.append(Leaving(index, slot, into, place.scene + into - gone, 1))
        return runs

    def sink_shift(self, place: Place) -> int:
        """Shift of the sink, in frames, against the position that it was written at."""
        if not self.sink_moves:
            return 0
        oldest = place.start - self.history(place)[1]
        return self.sink_rule.shift(self.sink_frames, oldest - place.scene, place.end - place.scene)

    def ring_runs(self, place: Place, frames: int) -> list[tuple[int, int]]:
        """Runs (slot behind the front, count) of the newest ``frames`` frames of the ring before ``place``."""
        runs: list[tuple[int, int]] = []
        for frame in range(place.start - frames, place.start):
            slot = frame - place.ring_origin
            slot = self.sink_frames + (slot if self.ring_frames is None else slot % self.ring_frames)
            first, count = runs[-1] if runs else (-1, -1)
            if slot == first + count:
                runs[-1] = (first, count + 1)
            else:
                runs.append((slot, 1))
        return runs

    def committed_runs(self, place: Place, keep_sink: bool = False) -> list[tuple[int, int, int]]:
        """Runs that a commit at ``place`` copies: (index within the chunk, slot behind the front, count)."""
        runs: list[tuple[int, int, int]] = []
        pinned = None if place.ring is None else self.ring_after(place)
        for source, frame in enumerate(range(place.start, place.end)):
            if frame - place.scene < self.sink_frames:
                if keep_sink:
                    continue
                target = frame - place.scene
            elif frame < place.ring_origin:
                continue
            elif pinned is not None:
                if frame not in pinned:
                    continue
                target = self.sink_frames + pinned.index(frame)
            elif self.ring_frames is None:
                target = self.sink_frames + frame - place.ring_origin
            elif frame < place.end - self.ring_frames:
                continue
            else:
                target = self.sink_frames + (frame - place.ring_origin) % self.ring_frames
            first, onto, count = runs[-1] if runs else (-1, -1, 0)
            if (source, target) == (first + count, onto + count):
                runs[-1] = (first, onto, count + 1)
            else:
                runs.append((source, target, 1))
        return runs

    def ring_after(self, place: Place) -> tuple[int, ...] | None:
        """The ring after a commit at ``place``, where shots are pinned; else None."""
        if not self.pins:
            return None
        assert self.ring_frames is not None
        first = max(place.start, place.scene + self.sink_frames)
        return ring_after(place.ring or (), range(first, place.end), place.pin, self.ring_frames)

    def ring_capacity(self, frames: int) -> int:
        """Capacity of the ring, in frames, for a video of ``frames``; an unbounded ring grows by half."""
        if self.ring_frames is not None:
            return self.ring_frames
        capacity = FIRST_CAPACITY
        while capacity < frames - self.sink_frames:
            capacity += capacity // 2
        return capacity

    def whole_frames(self, ring: int) -> int:
        """Latent frames of a layer's buffers, with a ring of ``ring`` frames; a quantised ring is not in them."""
        return self.front_frames + self.sink_frames + (ring if self.kv_dtype is None else 0)

    def nbytes(self, frames: int = 0) -> int:
        """Bytes of a cache for a video of ``frames`` latent frames (which matter to an unbounded ring only)."""
        ring = self.ring_capacity(frames)
        tokens = self.whole_frames(ring) * self.frame_tokens + self.text_len
        values = self.layers * self.batch * self.heads * self.head_dim
        sink = values * self.sink_frames * self.frame_tokens
        if self.sink_average is not None:
            kept = 2 * sink * SINK_MEAN.itemsize
        else:
            kept = sink * self.dtype.itemsize if self.sink_moves else 0
        if self.kv_dtype is not None:
            sizes = (self.frame_tokens, self.heads, self.head_dim, self.dtype)
            kept += self.layers * self.batch * ring * FORMATS[self.kv_dtype].frame_bytes(*sizes)
        bank = 0 if self.bank is None else self.bank.frames
        shared = 2 * values // self.layers * (self.shared_frames + self.block_frames) * self.frame_tokens
        return (2 * values * (tokens + bank * self.frame_tokens) + shared) * self.dtype.itemsize + kept

    @property
    def block_frames(self) -> int:
        """Latent frames of a quantised ring that are decoded at a time; 0: the ring is not quantised."""
        if self.kv_dtype is None:
            return 0
        most = self.ring_capacity(0)
        return min(most, max(1, BLOCK_TOKENS // self.frame_tokens))

    @property
    def shared_frames(self) -> int:
        """Latent frames of the buffers that all layers share, see `WideViews`."""
        if not self.is_wide:
            return 0
        bank = 0 if self.bank is None else self.bank.frames
        if self.kv_dtype is not None:
            return self.wide_frames + self.sink_frames + bank
        return (self.window_frames or 0) + bank

    def wide_bytes(self, frames: int) -> int:
        """Bytes of the buffers that a wide pass which sees ``frames`` latent frames needs besides the cache."""
        frames += 0 if self.bank is None else self.bank.frames
        if frames <= self.shared_frames:
            return 0
        return 2 * self.batch * frames * self.frame_tokens * self.heads * self.head_dim * self.dtype.itemsize

    @property
    def is_wide(self) -> bool:
        """Whether all passes are wide ones, so that there is no front."""
        return self.bank is not None or self.sight is not None

    @property
    def follows_all(self) -> bool:
        """Whether the cache depends on all passes of the scene, and not on the newest ones alone."""
        return self.sink_average is not None or self.bank is not None
