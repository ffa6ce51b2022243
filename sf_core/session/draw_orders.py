"""The orders in which the authors' scripts draw their noise.

A script seeds one generator and draws from it, call after call; which part of a video a call is for depends on all
calls before it. An order lists these calls. It says nothing of values: `PublishedNoise` draws.

Read in, and for each order run from, the scripts of guandeh17/Self-Forcing 33593df (inference.py; those of Causal
Forcing 1fc7bbc, LongLive 1, Reward Forcing 4317f5a, Infinite-Forcing b8feaf5, SGF 8b12c08 and MemFlow 7ed5147 draw
alike), TencentARC/RollingForcing a1477d0, krea-ai/realtime-video acf4b7b (release_server.py), NVlabs/LongLive 7860ad9,
Causal-rCM ed3cb14 (wan2pt1_t2v_causal_infer.py) and NVIDIA/flashdreams b7c89fb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate

import torch
from torch import Tensor

from ..config import RolloutConfig
from ..files.published_models import preset

Address = tuple[int, int]  # a sampled chunk and a step, as `NoiseSource` counts them
_PATCH = 2  # rows and columns of a patch of Wan


@dataclass(frozen=True)
class Clip:
    """The video that a script draws noise for.

    Attributes:
        frames: Latent frames of each sampled chunk.
        steps: Denoising steps of each sampled chunk.
        frame_shape: Channels, height and width of a latent frame.
        batch: Number of videos that are made together.
        given: Latent frames before the first sampled chunk.
    """

    frames: tuple[int, ...]
    steps: tuple[int, ...]
    frame_shape: tuple[int, int, int]
    batch: int = 1
    given: int = 0

    @property
    def sampled(self) -> int:
        """Latent frames of all sampled chunks."""
        return self._ends[-1]

    def span(self, chunk: int) -> slice:
        """The frames of a chunk, counted from the first sampled one."""
        return slice(self._ends[chunk] - self.frames[chunk], self._ends[chunk])

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.frames))


@dataclass(frozen=True)
class Draw:
    """One call of the generator.

    Attributes:
        shape: Of the drawn tensor.
        parts: For each address that it has noise for, the function that cuts it out, as [B, C, F, H, W].
        for_all: Whether it has noise for all chunks, early ones and late ones.
    """

    shape: tuple[int, ...]
    parts: dict[Address, Callable[[Tensor], Tensor]]
    for_all: bool = False


@dataclass(frozen=True)
class DrawOrder:
    """A script's order.

    Attributes:
        draws: Its calls for a clip.
        dtype: The number format that it draws in.
        turn: A number that rises with the calls, of the address that a call has noise for, if it is one alone.
    """

    draws: Callable[[Clip], Iterator[Draw]]
    dtype: torch.dtype = torch.bfloat16
    turn: Callable[[Address], tuple[int, ...]] = tuple


def _whole_clip(clip: Clip, given: int = 0) -> Draw:
    """The first noise of all chunks at once, [B, F, C, H, W]; ``given``: with that many frames before them, unused."""

    def first_noise(drawn: Tensor, chunk: int) -> Tensor:
        return drawn[:, given:][:, clip.span(chunk)].movedim(2, 1)

    parts: dict[Address, Callable[[Tensor], Tensor]]
    parts = {(chunk, 0): partial(first_noise, chunk=chunk) for chunk in range(len(clip.frames))}
    return Draw((clip.batch, given + clip.sampled, *clip.frame_shape), parts, for_all=True)


def _of_frames(drawn: Tensor, batch: int, frames: slice) -> Tensor:
    """Some frames of a draw [B * F, C, H, W]."""
    return drawn.unflatten(0, (batch, -1))[:, frames].movedim(2, 1)


def _later_steps(clip: Clip) -> Iterator[Draw]:
    """A draw for each step but the first, chunk by chunk, [B * F, C, H, W]."""
    for chunk, steps in enumerate(clip.steps):
        shape = (clip.batch * clip.frames[chunk], *clip.frame_shape)
        for step in range(1, steps):
            yield Draw(shape, {(chunk, step): partial(_of_frames, batch=clip.batch, frames=slice(None))})


def _self_forcing(clip: Clip) -> Iterator[Draw]:
    yield _whole_clip(clip)
    yield from _later_steps(clip)


def _krea(clip: Clip) -> Iterator[Draw]:
    """The clip has noise for given frames, too."""
    yield _whole_clip(clip, clip.given)
    yield from _later_steps(clip)


def _longlive2(clip: Clip) -> Iterator[Draw]:
    """The solver adds no noise."""
    yield _whole_clip(clip)


def _rolling_forcing(clip: Clip) -> Iterator[Draw]:
    """After each joint pass, for each chunk in flight that has a step to go: a draw for all frames in flight.

    Only the chunk's own part of it is used.
    """
    yield _whole_clip(clip)
    steps, chunks = clip.steps[0], len(clip.frames)
    for window in range(chunks + steps - 1):
        flying = range(max(0, window - steps + 1), min(chunks - 1, window) + 1)
        first = clip.span(flying[0]).start
        shape = (clip.batch * (clip.span(flying[-1]).stop - first), *clip.frame_shape)
        for chunk in flying:
            step = window - chunk + 1
            if step < steps:
                own = clip.span(chunk)
                frames = slice(own.start - first, own.stop - first)
                yield Draw(shape, {(chunk, step): partial(_of_frames, batch=clip.batch, frames=frames)})


def _causal_rcm(clip: Clip) -> Iterator[Draw]:
    """All noise before the first pass: that of each step is a clip, [B, C, F, H, W], with a given frame from step 1."""
    channels, *size = clip.frame_shape
    for step in range(max(clip.steps)):
        given = clip.given if step else 0

        def part(drawn: Tensor, chunk: int, given: int) -> Tensor:
            return drawn[:, :, given:][:, :, clip.span(chunk)]

        taking = [chunk for chunk, steps in enumerate(clip.steps) if step < steps]
        parts: dict[Address, Callable[[Tensor], Tensor]]
        parts = {(chunk, step): partial(part, chunk=chunk, given=given) for chunk in taking}
        yield Draw((clip.batch, channels, given + clip.sampled, *size), parts, for_all=True)


def _flashdreams(clip: Clip) -> Iterator[Draw]:
    """A draw for each step of each chunk, the first included, in the network's tokens: [F * H/2 * W/2, C * 2 * 2]."""
    channels, rows, columns = clip.frame_shape
    tokens = (rows // _PATCH, columns // _PATCH)

    def part(drawn: Tensor, frames: int) -> Tensor:
        patches = drawn.view(frames, *tokens, channels, _PATCH, _PATCH)  # frame, row, column, channel, in the patch
        return patches.permute(3, 0, 1, 4, 2, 5).reshape(1, channels, frames, rows, columns)

    for chunk, steps in enumerate(clip.steps):
        frames = clip.frames[chunk]
        shape = (frames * tokens[0] * tokens[1], channels * _PATCH**2)
        for step in range(steps):
            yield Draw(shape, {(chunk, step): partial(part, frames=frames)})


ORDERS = {  # by the name that session files have
    "self-forcing": DrawOrder(_self_forcing),
    "rolling-forcing": DrawOrder(_rolling_forcing, turn=lambda address: (sum(address), address[0])),
    "krea": DrawOrder(_krea),
    "longlive2": DrawOrder(_longlive2),
    "causal-rcm": DrawOrder(_causal_rcm, torch.float32),
    "flashdreams": DrawOrder(_flashdreams),
}

_NO_ORDER = {  # by preset
    "Self Forcing, web demo (shift 8)": "the web demo draws the noise of later steps without a seed",
    "CausVid": "its script sets no seed",
}


def order_for(config: RolloutConfig, clip: Clip) -> str:
    """Return the name of the order in which the script of these settings draws the noise of ``clip``.

    Raises:
        ValueError: No script makes such a video from a seed; the message says why.
    """
    plain = replace(config, kv_dtype=None, kv_offload=False)
    for name, why in _NO_ORDER.items():
        if plain == preset(name):
            raise ValueError(f"these are the settings of {name!r}, and {why}: no video of it can be made again")
    rules = {
        "rolling-forcing": config.schedule == "rolling",
        "krea": config.context == "recompute",
        "longlive2": config.solver == "unipc",
        "causal-rcm": config.exact_times,
        "flashdreams": plain == preset("flashdreams"),
    }
    named = [name for name, holds in rules.items() if holds]
    if len(named) > 1:
        raise ValueError(f"no script has the rules of {' and '.join(named)} together")
    order = named[0] if named else "self-forcing"
    if fault := _fault(order, clip):
        raise ValueError(fault)
    return order


def _fault(order: str, clip: Clip) -> str:
    """Return why the order's script does not make such a video; empty if it does."""
    if order in ("krea", "flashdreams") and clip.batch > 1:
        return f"the script makes one video at a time, and the batch is {clip.batch}"
    if order == "rolling-forcing" and len(clip.frames) < clip.steps[0]:
        return (
            f"the script skips steps of a video of fewer chunks than steps: here {len(clip.frames)} and "
            f"{clip.steps[0]}. Take a longer video"
        )
    if not clip.given:
        return ""
    if order in ("rolling-forcing", "flashdreams"):
        return "the script does not run with given frames: begin without them"
    if order == "longlive2":
        return f"the script begins with one given frame inside the first chunk, and {clip.given} were given before it"
    if order == "causal-rcm" and clip.given > 1:
        return f"the script begins with one given frame, and {clip.given} were given"
    return ""
