"""The noise of a published video: drawn as the authors' scripts draw it, from their seed.

The scripts of Self Forcing (guandeh17/Self-Forcing, inference.py), Causal Forcing, LongLive 1, Reward Forcing and
Infinite-Forcing seed torch's generator of the device, draw the whole clip at once, and then new noise for each step
but the first, chunk by chunk, all in bfloat16 and frame by frame: [B, F, C, H, W].
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from ..noise import MAX_SEED
from .record import SessionRecord

AS_PUBLISHED = "as published"
_DTYPE = torch.bfloat16


class PublishedNoise:
    """The noise that the authors' script draws for the first video of a run with this seed.

    A draw depends on all before it, so it is only the same video if all of it is: seed, length, size, batch and kind
    of device. Draws in another order give the same noise: what comes before is drawn again.
    """

    def __init__(
        self,
        seed: int,
        frames: tuple[int, ...],
        steps: tuple[int, ...],
        frame_shape: tuple[int, int, int],
        batch: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        """Describe the clip; nothing is drawn yet.

        Args:
            seed: The script's seed.
            frames: Latent frames of each sampled chunk.
            steps: Denoising steps of each sampled chunk.
            frame_shape: Channels, height and width of a latent frame.
            batch: Number of videos that are made together (``num_samples``).
            device: Where the script draws.

        Raises:
            ValueError: The seed is out of range.
        """
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed is {seed}; expected a whole number from 0 to {MAX_SEED}")
        self.seed, self._frames, self._steps = seed, frames, steps
        self._frame_shape, self._batch, self._device = frame_shape, batch, torch.device(device)
        self._lock = threading.Lock()
        self._clip: Tensor | None = None
        self._begin()

    @staticmethod
    def of(session: SessionRecord, seed: int, frames: int) -> PublishedNoise:
        """Describe the noise of a session whose video ends after ``frames`` latent frames.

        Args:
            session: The session before its first sampled chunk; frames that it was given are not drawn.
            seed: The script's seed.
            frames: Latent frames of the whole video, given ones included; 21 in most scripts.

        Raises:
            ValueError: These scripts do not make videos with such settings, or the count does not cut into chunks.
        """
        config = session.config
        others = {
            "schedule": (config.schedule, "chunk"),
            "solver": (config.solver, "renoise"),
            "context": (config.context, "cache"),
            "exact_times": (config.exact_times, False),
        }
        other = [f"{name}={value!r}" for name, (value, usual) in others.items() if value != usual]
        if other:
            raise ValueError(
                f"noise {AS_PUBLISHED!r} is not known for models with {', '.join(other)} (Rolling Forcing, LongLive 2, "
                "Krea, Causal-rCM): their scripts draw otherwise. Leave the noise as it is"
            )
        if session.chunks:
            raise ValueError(
                f"noise {AS_PUBLISHED!r} begins with a video's first chunk; this session has {session.chunks}"
            )
        config.check_frames(frames)
        if frames <= session.frames:
            raise ValueError(
                f"the video is to have {frames} latent frames and was given {session.frames}: none is drawn"
            )
        lengths, steps, at = [], [], session.frames
        while at < frames:
            lengths.append(config.frames_of_block(at))
            steps.append(len(config.timesteps(at)))
            at += lengths[-1]
        shape = (session.model.arch.in_dim, *session.latent_size)
        return PublishedNoise(seed, tuple(lengths), tuple(steps), shape, session.batch, session.model.device)

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """The noise of a chunk and a step.

        Raises:
            ValueError: The clip that was drawn has no such chunk.
        """
        if chunk >= len(self._frames):
            raise ValueError(
                f"noise {AS_PUBLISHED!r} was drawn for a video of {sum(self._frames)} latent frames, which is at its "
                "end: the authors' script draws the whole clip first. Begin anew with a longer one, or set "
                "another seed and go on with the pack's own noise"
            )
        with self._lock:
            if step == 0:
                start = sum(self._frames[:chunk])
                drawn = self._whole()[:, start : start + self._frames[chunk]]
            else:
                drawn = self._added(chunk, step)
        return drawn.movedim(2, 1).float()

    def _begin(self) -> None:
        self._generator = torch.Generator(self._device).manual_seed(self.seed)
        self._clip = None
        self._order = self._addresses()
        self._newest: tuple[tuple[int, int], Tensor] | None = None

    def _addresses(self) -> Iterator[tuple[int, int]]:
        return ((chunk, step) for chunk, count in enumerate(self._steps) for step in range(1, count))

    def _whole(self) -> Tensor:
        if self._clip is None:
            self._clip = self._draw(self._batch, sum(self._frames))
        return self._clip

    def _added(self, chunk: int, step: int) -> Tensor:
        """Return the noise that is added before a step; everything before it in the script's order is drawn."""
        if self._newest is not None and self._newest[0] == (chunk, step):
            return self._newest[1].unflatten(0, (self._batch, self._frames[chunk]))
        if self._newest is not None and self._newest[0] > (chunk, step):
            self._begin()
        self._whole()
        for address in self._order:
            self._newest = (address, self._draw(self._batch * self._frames[address[0]]))
            if address == (chunk, step):
                return self._newest[1].unflatten(0, (self._batch, self._frames[chunk]))
        raise ValueError(
            f"chunk {chunk} has {self._steps[chunk]} steps, and the noise before step {step} was asked for"
        )

    def _draw(self, *count: int) -> Tensor:
        return torch.randn((*count, *self._frame_shape), generator=self._generator, device=self._device, dtype=_DTYPE)
