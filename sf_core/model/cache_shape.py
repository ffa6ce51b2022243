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
from .pinned_slabs import slab_bytes
from .pins import ring_after
from .place import Leaving, Place, Seen
from .sight import RollingSight
from .sink import SinkRule, sink_rule

SINK_MEAN = torch.float32  # of an averaged sink: a thousandth of a bf16 number would be rounded away
FIRST_CAPACITY = 24  # frames that an unbounded ring holds before it grows
BLOCK_TOKENS = 4096  # of a quantised ring, decoded at a time


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
    offload: bool = False  # everything is kept in host memory, see cache_storage.py

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
        wide = rolling or bank is not None or config.kv_offload  # passes are wide ones
        return CacheShape(
            layers=arch.num_layers,
            batch=batch,
            heads=arch.num_heads,
            head_dim=arch.head_dim,
            frame_tokens=rows * columns,
            front_frames=0 if wide else config.front_frames,
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
            wide_frames=config.wide_frames if wide else 0,
            offload=config.kv_offload,
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
        """Whether the sink is kept as it was written, which is not how attention sees it."""
        return self.sink_moves or self.sink_average is not None

    @property
    def copies_sink(self) -> bool:
        """Whether that is a copy, beside the one that attention sees."""
        return self.sink_average is not None or (self.sink_moves and not self.offload)

    @property
    def rotates_when_loaded(self) -> bool:
        """Whether the sink is rotated whenever a layer is copied to the device, and not once before a chunk."""
        return self.offload and self.keeps_sink

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

    def past_runs(self, place: Place, seen: Seen, without: int = 0) -> list[tuple[int, int]]:
        """Runs (slot behind the front, count) of the sink and the ring that a pass attends to, in their order.

        The first ``without`` frames of the sink are left out.
        """
        sink = [(without, seen.sink - without)] if seen.sink > without else []
        if self.sight is None and self.bank is None:  # as they are in the buffers
            return [*sink, *([(self.sink_frames, seen.ring)] if seen.ring else [])]
        return [*sink, *self.ring_runs(place, seen.ring)]

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
        """Bytes on the device of a cache for a video of ``frames`` latent frames.

        The length matters to an unbounded ring only.
        """
        ring = self.ring_capacity(frames)
        frame = 2 * self.batch * self.heads * self.head_dim * self.dtype.itemsize  # keys and values of one token
        lanes = self.lanes * (self.lane_frames(ring) * self.frame_tokens * frame)
        if self.offload:
            lanes += self.lanes * sum(self.ring_buffers(ring))
        block = self.block_frames * self.frame_tokens * frame
        text = self.layers * self.text_len * frame
        return text + lanes + block + (0 if self.offload else self._held_bytes(ring))

    def host_bytes(self, frames: int = 0) -> int:
        """As `nbytes`: bytes in host memory, of an offloaded cache."""
        return self._held_bytes(self.ring_capacity(frames)) if self.offload else 0

    def pinned_bytes(self, frames: int = 0) -> int:
        """What `host_bytes` take where they are pinned: the slabs that the buffers are cut from."""
        groups = self._held_groups(self.ring_capacity(frames)) if self.offload else []
        return sum(slab_bytes(count, parts) for count, parts in groups)

    def _held_groups(self, ring: int) -> list[tuple[int, list[int]]]:
        """Buffers that are kept between passes, as they are made: how many times which, in bytes."""
        values = self.batch * self.heads * self.head_dim * self.frame_tokens  # of the keys of one frame
        bank = 0 if self.bank is None else self.bank.frames
        means, copies = self.sink_average is not None, self.copies_sink
        sink = values * self.sink_frames * (SINK_MEAN if means else self.dtype).itemsize
        return [
            (2 * self.layers, [values * self.whole_frames(ring) * self.dtype.itemsize]),
            (self.layers * copies, [sink]),
            (self.layers * means, [sink]),
            (2 * self.layers, [values * bank * self.dtype.itemsize]),
            (self.layers, self.ring_buffers(ring)),
        ]

    def _held_bytes(self, ring: int) -> int:
        return sum(count * sum(parts) for count, parts in self._held_groups(ring))

    def ring_buffers(self, ring: int) -> list[int]:
        """Bytes of each tensor of one layer's quantised ring; none, if it is not quantised."""
        return [ring * nbytes for nbytes in self._stored_frame_bytes]

    @property
    def _stored_frame_bytes(self) -> list[int]:
        """Bytes of each tensor of a frame of one layer in a quantised ring; none, if it is not quantised."""
        if self.kv_dtype is None:
            return []
        sizes = (self.frame_tokens, self.heads, self.head_dim, self.dtype)
        return [self.batch * nbytes for nbytes in FORMATS[self.kv_dtype].frame_bytes(*sizes)]

    @property
    def block_frames(self) -> int:
        """Latent frames of a quantised ring that are decoded at a time; 0: the ring is not quantised."""
        if self.kv_dtype is None:
            return 0
        most = self.ring_capacity(0)
        return min(most, max(1, BLOCK_TOKENS // self.frame_tokens))

    @property
    def lanes(self) -> int:
        """Layers that passes have in buffers of their own at a time, where all passes are wide ones."""
        return 2 if self.offload else int(self.is_wide)

    def lane_frames(self, ring: int) -> int:
        """Latent frames of a lane (see wide_views.py), with a ring of ``ring`` frames."""
        bank = 0 if self.bank is None else self.bank.frames
        if self.kv_dtype is not None:
            return self.wide_frames + self.sink_frames + bank
        if self.window_frames is None:
            return self.wide_frames + self.sink_frames + ring + bank
        return self.window_frames + bank

    def wide_bytes(self, frames: int) -> int:
        """Bytes of the buffers that a wide pass which sees ``frames`` latent frames needs besides the cache."""
        frames += 0 if self.bank is None else self.bank.frames
        if self.lanes and frames <= self.lane_frames(self.ring_capacity(frames)):
            return 0
        values = 2 * self.batch * frames * self.frame_tokens * self.heads * self.head_dim
        return max(1, self.lanes) * values * self.dtype.itemsize

    @property
    def is_wide(self) -> bool:
        """Whether all passes are wide ones, so that there is no front."""
        return self.offload or self.bank is not None or self.sight is not None

    @property
    def follows_all(self) -> bool:
        """Whether the cache depends on all passes of the scene, and not on the newest ones alone."""
        return self.sink_average is not None or self.bank is not None
