"""What is set for a session's next chunk, and what is undone. Each gives a new value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..noise import NoiseSource, SeededNoise
from .archive import StoredLatents
from .blocks import NOTHING, Event
from .checks import check_context, check_prompt, check_recache
from .drift import check_match
from .published_noise import SOURCE_AND_PUBLISHED, PublishedNoise, check_noise
from .record import SessionRecord
from .source import Source, check_source


@dataclass(frozen=True, eq=False, repr=False)
class NextSettings(SessionRecord):
    """A record with what can be set for its next chunk. `Session` samples, saves and loads."""

    def with_context(self, latents: Tensor) -> Self:
        """Begin the video with given latents: those of one image, or of a clip to be extended.

        The latents are cut into blocks like sampled frames. A session takes context once, while it is empty. With
        ``context_in_chunk``, one latent frame is no block: it sits inside the first chunk that is sampled.

        Args:
            latents: The context [B or 1, C, F, H, W].

        Raises:
            ValueError: A wrong shape or count, naming the nearest counts that fit, NaN, or noise as published of a
                video that no script begins like this.
        """
        if self.head is not None or self.held is not None:
            has = f"{self.frames} latent frames" if self.head else "a given frame for its first chunk"
            raise ValueError(f"context can only be given to an empty session; this one has {has}")
        if self.source is not None:
            raise ValueError("the next chunk has a source already: give the context first, then with_source")
        check_context(self.config, latents, self.batch, (self.model.arch.in_dim, *self.latent_size))
        latents = latents.detach().expand(self.batch, -1, -1, -1, -1).to(self.model.device, torch.float32)
        if self.config.context_in_chunk and latents.shape[2] == 1:
            return replace(self, held=latents.clone())
        session = self
        if isinstance(self.noise, PublishedNoise):  # the script draws another clip for a video with given frames
            noise = PublishedNoise.of(self, self.noise.seed, self.noise.frames, given=latents.shape[2])
            session = replace(self, noise=noise)
        while session.frames < latents.shape[2]:
            count = self.config.frames_of_block(session.frames)
            part = latents[:, :, session.frames : session.frames + count].clone()
            session = session.restore_block(part, 0.0, NOTHING, sampled=False)
        return replace(session, event=self.event)

    def with_prompt(
        self, prompt: Tensor, recache: bool | str = False, recache_sink: bool = False, words: str = ""
    ) -> Self:
        """Use another prompt from the next chunk on. The last call before a chunk wins.

        Args:
            prompt: Text embeddings [B or 1, rows, text_dim].
            recache: Pass the window again under the new prompt, so that the video follows it sooner: chunk by chunk, or
                with ``"joint"`` in one pass in which all its frames see each other, as LongLive does. A joint recache
                keeps the sink as it is, under its old prompt, unless the window holds the whole scene.
            recache_sink: Pass the sink again too, first. Of a joint recache: the window's first frames become the sink.
            words: The prompt as text, kept for display.

        Raises:
            ValueError: A prompt that does not fit, or a recache that makes no sense with the rollout settings.
        """
        check_recache(self.config, recache, recache_sink)
        joint = recache == "joint"
        again = bool(recache) or recache_sink
        other = check_prompt(self.model, prompt, self.batch, words)
        match = self.event.match and other.digest == self.prompt.digest
        event = replace(self.event, recache=again, recache_sink=recache_sink, joint=joint, match=match)
        return replace(self, prompt=other, event=event)

    def with_shot(self, prompt: Tensor, words: str = "") -> Self:
        """Begin a new shot with the next chunk, under ``prompt``; what came before stays in sight (LongLive 2).

        Positions jump by ``shot_offset``. With ``pin_shots`` the chunk stays in the window until another shot begins.
        The first chunk of a video begins a shot by itself, so there this is `with_prompt`.

        Args:
            prompt: Text embeddings [B or 1, rows, text_dim].
            words: The prompt as text, kept for display.

        Raises:
            ValueError: The settings have no rule for shots.
        """
        if not self.config.shot_offset and not self.config.pin_shots:
            raise ValueError(
                "a shot would change nothing: the settings have shot_offset=0 and pin_shots=False. Take the settings "
                "of LongLive 2 (8, True), or change the prompt with with_prompt; with_cut begins from an empty cache"
            )
        session = self.with_prompt(prompt, words=words)
        return replace(session, event=replace(session.event, shot=True, match=False))

    def with_source(self, latents: Tensor, strength: float, schedule: str = "truncated") -> Self:
        """Make the next chunk from given latents: video to video. The last call before a chunk wins.

        The source is part of the record: a chunk that is rewound and sampled again has it again.

        Args:
            latents: The latents that stand for the next chunk in the given video [B or 1, C, F, H, W].
            strength: How much of them is made anew, from 0 (the chunk is its source) to 1 (as without a source).
            schedule: ``truncated``: the chunk begins at the first denoising step whose noise level is at most
                ``strength``. ``rescaled``: all steps are taken, at nominal timesteps times ``strength``, as Krea does.
                ``repeated``: the last step is taken as often as there are steps, on ``strength`` times its noise. At
                strength 1 that is as much as this schedule makes anew, which is less than all.

        Raises:
            ValueError: An argument does not fit, or the settings have no room for a source; the message says which.
        """
        if isinstance(self.noise, PublishedNoise):
            raise ValueError(SOURCE_AND_PUBLISHED)
        shape = (self.batch, self.model.arch.in_dim, self.config.frames_of_block(self.frames), *self.latent_size)
        check_source(self.config, latents, strength, schedule, shape)
        given = latents.detach().expand(self.batch, -1, -1, -1, -1).to(self.model.device, torch.float32)
        source = Source(StoredLatents(given.clone()), float(strength), schedule)
        if self.config.context_from_last_step and not source.timesteps(self.config, self.chunks):
            raise ValueError(
                f"at strength {strength:g} no denoising step is left, and context_from_last_step keeps what the last "
                "one saw: raise the strength"
            )
        return replace(self, source=source)

    def with_noise(self, noise: NoiseSource) -> Self:
        """Use a noise source of the caller's from the next chunk on, such as `PublishedNoise.of` this session.

        Raises:
            ValueError: It is a `PublishedNoise` of another video than this session's.
        """
        check_noise(self, noise)
        return replace(self, noise=noise)

    def with_seed(self, seed: int) -> Self:
        """Use `SeededNoise(seed)` from the next chunk on. ``rewind(1).with_seed(s)`` is a re-roll.

        So it ends a `PublishedNoise`, whose later draws a script has only behind its own earlier ones. A rewind to a
        chunk before brings it back.
        """
        return replace(self, noise=SeededNoise(seed))

    def with_cut(self) -> Self:
        """Begin a new scene: the next chunk attends to nothing before it. Positions continue; the sink begins anew."""
        return replace(self, event=replace(self.event, cut=True, match=False))

    def with_match(self) -> Self:
        """Give the next chunk mean and spread of the first chunks of its stretch, see `drift.Anchor`, once.

        Colours and contrast that have drifted go back to what they were. A prompt, a cut or a shot that is set before
        the chunk begins a stretch of its own, and ends this.

        Raises:
            ValueError: There is nothing to match, or the settings have no room for it; the message says which.
        """
        check_match(self)
        return replace(self, event=replace(self.event, match=True))

    def rewind(self, chunks: int = 1) -> Self:
        """Undo the newest ``chunks`` calls of `next_chunk`, and everything that was set after them."""
        if not 0 <= chunks <= self.chunks:
            raise ValueError(f"cannot rewind {chunks} chunks: {self.chunks} have been sampled")
        session = self
        for _ in range(chunks):
            block = session.head
            assert block is not None
            session = replace(session, head=block.parent, prompt=block.prompt, noise=block.noise)
            session = replace(session, event=block.event, flights=block.flights, source=block.source)
        return session

    def fork(self) -> Self:
        """A copy to continue in another direction. A session is a value, so this only states the intent."""
        return replace(self)

    def restore_block(
        self, latents: Tensor, timestep: float, event: Event, sampled: bool, noisy: Tensor | None = None
    ) -> Self:
        """Append a block from a record, made with the session's present prompt and noise."""
        block = self.block_at(self.point(event), latents, timestep, self.chunks if sampled else None, noisy)
        session = replace(self, head=block, event=NOTHING, source=None, flights=None)
        session.archive_old_blocks()
        return session
