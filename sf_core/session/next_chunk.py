"""The making of a session's next chunk: a cache is leased and brought to the point before it, then it is sampled."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from ..cuda_streams import to_device_async
from ..model.cache_pool import LiveCache
from ..model.kv_cache import RollingKVCache
from ..model.wide_views import open_in_flight
from .archive import StoredLatents
from .blocks import Block
from .cache_point import CachePoint, point_before
from .checks import check_reencoded
from .drift import match_to_anchor
from .published_noise import check_noise_left, chunks_left
from .record import SessionRecord
from .replay import CachePass, last_passes, replaced_frame, replay_passes
from .rolling import InFlight, passes_until_clean, roll
from .sampler import ChunkForward, denoise, hold, write_pass

# Called before every forward as (stage, index, count): "rebuild" for passes that only fill the cache, "step" for
# denoising steps. An exception that it raises ends next_chunk; everything made before is kept.
Progress = Callable[[str, int, int], None]

_REASONS = {
    "new": "the video begins here",
    "same": "its own cache was live",
    "copy": "another branch goes on with the original",
    "extend": "a cache of an earlier moment was live",
    "replay": "no cache of this past was live",
}


@dataclass(frozen=True, eq=False)
class SampledChunk:
    """A sampled chunk.

    Attributes:
        block: Its block, whose parent is the session's head.
        latents: Its clean latents [B, C, F, H, W].
        flights: What is in flight behind it.
        how: How its cache was obtained, and why.
    """

    block: Block
    latents: Tensor
    flights: InFlight | None
    how: str


class NextChunk:
    """The next chunk of ``session``; ``report`` is called before every forward."""

    def __init__(self, session: SessionRecord, report: Progress | None) -> None:
        torch.get_num_threads()  # in a new thread, settles the count before a first product is rounded otherwise
        check_noise_left(session)
        self._session, self._report = session, report or _report_nothing
        session.archive_old_blocks()
        encode_anew(session)
        self._now = session.point(session.event)

    def sample(self, add: bool) -> SampledChunk:
        """Sample it, or raise as `Session.next_chunk`; ``add``: begin others behind it (``schedule="rolling"``)."""
        session, model, now = self._session, self._session.model, self._now
        place = now.place(session.config.frames_of_block(now.start))
        with torch.inference_mode(False), torch.no_grad():
            points = self._points()
            state = model.state_key()
            keys = [state + point.key for point in points]
            ancestors = {point.head.lineage for point in points if point.head}
            with model.caches.lease(session.cache_shape, keys, ancestors) as (live, found):
                how = self._make_ready(live, found, points, keys, state)
                live.front = None
                if session.config.schedule == "rolling":
                    latents, flights = self._roll(live.cache, state, add)
                    last = latents, 0.0
                else:
                    forward = ChunkForward(model, live.cache, place, session.prompt, session.latent_size, state)
                    latents, last = self._denoise(forward, place.start, place.frames)
                    flights = None
                if now.event.match and now.head is not None:
                    latents = match_to_anchor(latents, now.head)
                if not torch.isfinite(latents).all():
                    raise FloatingPointError(
                        f"the latents of chunk {session.chunks} hold NaN or Inf; the session before it is intact. "
                        "Check the weights, or compute in a wider dtype"
                    )
                noisy, timestep = last if session.keeps_last_step else (None, float(session.config.context_noise))
                block = session.block_at(now, latents, timestep, session.chunks, noisy)
                live.tip = block.lineage
                # wide passes leave nothing in a front: their last step is passed again
                live.front = None if noisy is None or session.cache_shape.is_wide else live.tip
        return SampledChunk(block, latents, flights, how)

    def _denoise(self, forward: ChunkForward, start: int, frames: int) -> tuple[Tensor, tuple[Tensor, float]]:
        """The next chunk, and what its last step was given: noisy latents and timestep."""
        config, source = self._session.config, self._session.source
        steps = self._session.next_timesteps
        calls = itertools.count()
        held = self._session.held if start == 0 else None

        def predict(x: Tensor, timestep: float) -> Tensor:
            self._report("step", next(calls), len(steps))
            if held is None:
                return forward.flow(x, timestep)
            given = held.shape[2]
            return forward.flow(hold(x, held), [0.0] * given + [timestep] * (frames - given))

        def noise(step: int) -> Tensor:
            return self._noise(self._session.chunks, step, frames)

        watched = _Watched(predict)
        given = (None, 1.0) if source is None else (source.latents.get(), source.noise_share)
        latents = denoise(watched, noise, config, steps, *given)
        return latents if held is None else hold(latents, held), watched.last or (latents, 0.0)

    def _noise(self, chunk: int, step: int, frames: int) -> Tensor:
        shape = (self._session.batch, self._session.model.arch.in_dim, frames, *self._session.latent_size)
        drawn = self._session.noise(chunk, step, shape)
        if tuple(drawn.shape) != shape:
            raise ValueError(f"the noise source gave {list(drawn.shape)} for chunk {chunk}; expected {list(shape)}")
        return to_device_async(drawn.to(dtype=torch.float32), self._session.model.device)

    def _roll(self, cache: RollingKVCache, state: bytes, add: bool) -> tuple[Tensor, InFlight | None]:
        """The next chunk of a rolling schedule, and what is in flight behind it."""
        now = self._now
        flying = None if now.event.cut else self._session.flights
        timesteps = self._session.config.timesteps(self._session.chunks)
        steps = [] if flying is None else list(flying.steps)
        passes, done = passes_until_clean(steps, len(timesteps)), itertools.count()

        def flow(chunks: Sequence[Tensor], levels: Sequence[float]) -> Sequence[Tensor]:
            self._report("step", next(done), passes)
            counts = [chunk.shape[2] for chunk in chunks]
            place = now.place(sum(counts))
            views = open_in_flight(cache, place)
            forward = ChunkForward(
                self._session.model, cache, place, self._session.prompt, self._session.latent_size, state, views
            )
            of_frames = [level for level, count in zip(levels, counts, strict=True) for _ in range(count)]
            return forward.flow(torch.cat(list(chunks), dim=2), of_frames).split(counts, dim=2)

        def noise(index: int, step: int) -> Tensor:
            frames = self._session.config.frames_of_flights(now.start, index + 1)[-1]
            return self._noise(self._session.chunks + index, step, frames)

        counts = self._session.config.frames_of_flights(now.start, len(steps))
        chunks = [] if flying is None else list(flying.latents.get().split(counts, dim=2))
        most = chunks_left(self._session) if add else 0
        latents, left, next_steps = roll(flow, noise, chunks, steps, timesteps, self._session.config.noise_levels, most)
        return latents, InFlight(tuple(next_steps), StoredLatents(torch.cat(left, dim=2))) if left else None

    def _make_ready(
        self, live: LiveCache, found: str, points: list[CachePoint], keys: list[bytes], state: bytes
    ) -> str:
        """Bring a leased cache to the first of ``points``, and return how."""
        now, how, passes = points[0], "new", list[CachePass]()
        behind = None if live.key is None else keys.index(live.key)
        if behind is not None:
            how = found if behind <= 1 else "extend"
            passes = [p for point in reversed(points[:behind]) for p in last_passes(point, self._session.cache_shape)]
        if now.head is not None and (behind is None or behind > 1):
            replay = replay_passes(now, self._session.cache_shape)
            if behind is None or len(replay) < len(passes):
                how, passes = "replay", replay
        for index, cache_pass in enumerate(passes):
            self._report("rebuild", index, len(passes))
            if cache_pass.is_wide or live.cache.shape.is_wide:  # stored layer by layer
                live.key = None
            if live.front == cache_pass.block.lineage and cache_pass.is_as_sampled:
                keep: Callable[[], None] = partial(live.cache.commit, cache_pass.place, cache_pass.keep_sink)
            else:
                live.front = None
                keep = write_pass(self._session.model, live.cache, cache_pass, state)
            live.key = None  # until the last pass, the cache matches no key
            keep()
        live.key = keys[0]
        return f"{how}: {_REASONS[how]}" + (f" ({len(passes)} passes)" if how in ("extend", "replay") else "")

    def _points(self) -> list[CachePoint]:
        """The point before the chunk, and earlier ones from which extending a cache could be cheaper than a replay."""
        reach, now = self._session.reach, self._now
        blocks = now.head.back() if now.head else iter(())
        return [now, *map(point_before, islice(blocks, None if reach is None else reach + 1))]


def encode_anew(session: SessionRecord) -> None:
    """Ask for the re-encoded frame that the next chunk's context begins with, unless it is known or not needed."""
    head = session.head
    if head is None or head.reencoded is not None:
        return
    if replaced_frame(session.point(session.event), session.cache_shape) != "reencoded":
        return
    if session.reencode is None:
        raise ValueError(
            "context='recompute' begins each context with a picture that is encoded anew: give Session.start or "
            "Session.load 'reencode', which makes it with a VAE. In ComfyUI, connect Wan's VAE to 'vae' of Sample "
            "Chunks, or use Stream Video"
        )
    latents = session.reencode(session)
    check_reencoded(latents, session.batch, (session.model.arch.in_dim, *session.latent_size))
    whole = latents.detach().expand(session.batch, -1, -1, -1, -1).to(session.model.device, torch.float32)
    head.reencoded = StoredLatents(whole.clone())


def _report_nothing(stage: str, index: int, count: int) -> None:
    """A progress that nobody reads."""


class _Watched:
    """A flow prediction that remembers what it was given last."""

    def __init__(self, flow: Callable[[Tensor, float], Tensor]) -> None:
        self._flow = flow
        self.last: tuple[Tensor, float] | None = None

    def __call__(self, x: Tensor, timestep: float) -> Tensor:
        self.last = x, timestep
        return self._flow(x, timestep)
