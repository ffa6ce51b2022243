"""Sessions: a video in progress, as an immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..cancellation import Cancellation
from ..config import RolloutConfig
from ..model.causal_model import CausalModel
from ..noise import NoiseSource, SeededNoise
from .archive import Archive, StoredLatents
from .blocks import NOTHING, Event
from .checks import check_context, check_prompt, check_recache
from .drift import check_match
from .kept_chunk import check_kept, kept_flights, key_of_next, tensors_of_newest
from .next_chunk import NextChunk, Progress
from .published_noise import SOURCE_AND_PUBLISHED, PublishedNoise, check_noise
from .record import Reencode, SessionRecord
from .session_file import save_session
from .session_reading import open_session
from .source import Source, check_source


@dataclass(frozen=True, eq=False, repr=False)
class Session(SessionRecord):
    """A video in progress, as a value.

    Every method returns a new session and leaves this one unchanged, so keeping both is a fork. The KV cache is
    derived from the record and is never part of it. Begin with `Session.start` or `Session.load`.
    """

    @staticmethod
    def start(
        model: CausalModel,
        prompt: Tensor,
        latent_size: tuple[int, int] | None = None,
        config: RolloutConfig | None = None,
        seed: int = 0,
        batch: int = 1,
        noise: NoiseSource | None = None,
        archive_folder: Path | None = None,
        words: str = "",
        reencode: Reencode | None = None,
    ) -> Session:
        """Start an empty video.

        Args:
            model: The model that samples the chunks.
            prompt: Text embeddings [batch or 1, rows, text_dim]; kept without trailing zero rows, which
                the model adds again up to its text length.
            latent_size: Height and width of the latents. None: the model's own, if it has one.
            config: Rollout settings. None: the model's own, else `RolloutConfig()`.
            seed: Seed of the noise.
            batch: Number of videos that are made together.
            noise: Noise source. None: `SeededNoise(seed)`. See also `with_noise`.
            archive_folder: Folder of the temporary file for older latents. None: the system's.
            words: The prompt as text, kept for display.
            reencode: With ``context="recompute"``, makes the first frame of the next chunk's context, from the session:
                the last picture of latent frame ``frames - context_frames``, encoded alone. It is asked once a chunk,
                from the third on, and the session keeps the frame.

        Raises:
            ValueError: An argument does not fit the model.
        """
        size = latent_size or model.latent_size
        if size is None:
            raise ValueError("latent_size is missing: give (height, width) of the latents; this model names none")
        model.arch.token_grid(size)
        if batch < 1:
            raise ValueError(f"batch is {batch}; expected 1 or more")
        source = SeededNoise(seed) if noise is None else noise
        text = check_prompt(model, prompt, batch, words)
        config = config or model.rollout_config or RolloutConfig()
        archive = Archive(archive_folder)
        empty = Session(model, config, (size[0], size[1]), batch, None, text, source, NOTHING, archive)
        check_noise(empty, source)
        return replace(empty, reencode=reencode)

    def __repr__(self) -> str:
        return f"Session({self.chunks} chunks, {self.frames} latent frames of {self.latent_size}, batch {self.batch})"

    # What comes next ------------------------------------------------------------------------------------------------

    def with_context(self, latents: Tensor) -> Session:
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
    ) -> Session:
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

    def with_shot(self, prompt: Tensor, words: str = "") -> Session:
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

    def with_source(self, latents: Tensor, strength: float, schedule: str = "truncated") -> Session:
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

    def with_noise(self, noise: NoiseSource) -> Session:
        """Use a noise source of the caller's from the next chunk on, such as `PublishedNoise.of` this session.

        Raises:
            ValueError: It is a `PublishedNoise` of another video than this session's.
        """
        check_noise(self, noise)
        return replace(self, noise=noise)

    def with_seed(self, seed: int) -> Session:
        """Use `SeededNoise(seed)` from the next chunk on. ``rewind(1).with_seed(s)`` is a re-roll.

        So it ends a `PublishedNoise`, whose later draws a script has only behind its own earlier ones. A rewind to a
        chunk before brings it back.
        """
        return replace(self, noise=SeededNoise(seed))

    def with_cut(self) -> Session:
        """Begin a new scene: the next chunk attends to nothing before it. Positions continue; the sink begins anew."""
        return replace(self, event=replace(self.event, cut=True, match=False))

    def with_match(self) -> Session:
        """Give the next chunk mean and spread of the first chunks of its stretch, see `drift.Anchor`, once.

        Colours and contrast that have drifted go back to what they were. A prompt, a cut or a shot that is set before
        the chunk begins a stretch of its own, and ends this.

        Raises:
            ValueError: There is nothing to match, or the settings have no room for it; the message says which.
        """
        check_match(self)
        return replace(self, event=replace(self.event, match=True))

    def rewind(self, chunks: int = 1) -> Session:
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

    def fork(self) -> Session:
        """A copy to continue in another direction. A session is a value, so this only states the intent."""
        return replace(self)

    # Sampling -------------------------------------------------------------------------------------------------------

    def next_chunk(self, progress: Progress | None = None) -> tuple[Session, Tensor]:
        """Sample one chunk.

        Args:
            progress: Called before every forward.

        Returns:
            The longer session, and the chunk's latents [B, C, F, H, W].

        Raises:
            FloatingPointError: The latents hold NaN or Inf. This session is intact.
        """
        return self._extend(progress, add=True)

    def finish(self, progress: Progress | None = None) -> tuple[Session, Tensor]:
        """Sample the chunks in flight, with nothing new behind them (``schedule="rolling"``).

        Args:
            progress: Called before every forward.

        Returns:
            The longer session, and the latents of these chunks [B, C, F, H, W], of no frames if none was in flight.

        Raises:
            ValueError: The schedule has nothing in flight, or a cut that was asked for would give it up.
            FloatingPointError: As `next_chunk`.
        """
        if self.config.schedule != "rolling":
            raise ValueError(f"schedule is {self.config.schedule!r}, which has no chunks in flight to finish")
        if self.flights is not None and self.event.cut:
            raise ValueError("a cut gives up the chunks in flight: finish before the cut, or go on with next_chunk")
        session, parts = self, [self.latents_between(0, 0)]
        while session.flights is not None:
            session, latents = session._extend(progress, add=False)
            parts.append(latents)
        return session, torch.cat(parts, dim=2)

    def _extend(self, progress: Progress | None, add: bool) -> tuple[Session, Tensor]:
        """Sample one chunk; of a rolling schedule, ``add`` says whether others are begun behind it."""
        made = NextChunk(self, progress).sample(add)
        longer = replace(self, head=made.block, event=NOTHING, source=None, flights=made.flights, how=made.how)
        return longer, made.latents

    @property
    def next_key(self) -> bytes:
        """Digest of everything that the next chunk is made from, besides the model: same key and model, same chunk.

        Raises:
            ValueError: The noise source is the caller's own, which has no digest.
        """
        return key_of_next(self)

    def newest_chunk(self) -> dict[str, Tensor]:
        """What `with_chunk` takes to make the newest chunk again, on the CPU: ``latents``, and what else was kept."""
        return tensors_of_newest(self)

    def with_chunk(self, latents: Tensor, noisy: Tensor | None = None, flights: Tensor | None = None) -> Session:
        """The session that `next_chunk` returns, from the latents that it would sample.

        A cache of sampled chunks uses it, see `next_key`.

        Args:
            latents: The chunk [B, C, F, H, W].
            noisy: What its last step was given, with ``context_from_last_step``; see `newest_chunk`.
            flights: What is in flight behind it, with ``schedule="rolling"``.

        Raises:
            ValueError: The latents cannot be the next chunk.
        """
        check_kept(self, latents, noisy)
        latents = latents.to(self.model.device, torch.float32)
        timestep = float(self.config.context_noise)
        if noisy is not None:
            noisy, timestep = noisy.to(self.model.device, torch.float32), self.next_timesteps[-1]
        longer = self.restore_block(latents, timestep, self.event, True, noisy)
        if self.config.schedule == "rolling":
            longer = replace(longer, flights=kept_flights(self, flights))
        return replace(longer, how="kept: this chunk had been made before")

    # Records --------------------------------------------------------------------------------------------------------

    def restore_block(
        self, latents: Tensor, timestep: float, event: Event, sampled: bool, noisy: Tensor | None = None
    ) -> Session:
        """Append a block from a record, made with the session's present prompt and noise."""
        block = self.block_at(self.point(event), latents, timestep, self.chunks if sampled else None, noisy)
        session = replace(self, head=block, event=NOTHING, source=None, flights=None)
        session.archive_old_blocks()
        return session

    # Files ----------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, about: Mapping[str, str | float] | None = None) -> None:
        """Write the session to a safetensors file, whole or not at all.

        Args:
            path: The file.
            about: Facts for people, such as the name of the model. They change no result.

        Raises:
            OSError: The disk is full.
        """
        save_session(self, Path(path), about)

    @staticmethod
    def load(
        path: str | Path,
        model: CausalModel,
        noise: NoiseSource | None = None,
        allow_other_model: bool = False,
        archive_folder: Path | None = None,
        cancellation: Cancellation | None = None,
        reencode: Reencode | None = None,
    ) -> Session:
        """Read a session from a file.

        Args:
            path: A file that `save` wrote.
            model: The model to continue with.
            noise: The noise source of a session that was made with the caller's own.
            allow_other_model: Accept a session that other weights made; they are recorded in ``other_models``.
            archive_folder: As for `start`.
            cancellation: Polled while the record is checked, and before each block is read.
            reencode: As for `start`.

        Raises:
            ValueError: The file holds no whole session, or another model made it.
        """
        with open_session(Path(path), model, noise, allow_other_model, cancellation) as saved:
            begin = saved.next
            size, batch = saved.latent_size, saved.batch
            session = Session.start(
                model, begin.prompt.text, size, saved.config, batch=batch, archive_folder=archive_folder
            )
            session = replace(session, held=saved.held)
            for block in saved.blocks():
                if cancellation is not None:
                    cancellation.raise_if_asked()
                made = block.settings
                session = replace(session, prompt=made.prompt, noise=made.noise, flights=block.flights)
                session = replace(session, source=block.source)
                session = session.restore_block(block.latents, block.timestep, made.event, block.sampled, block.noisy)
                if session.head is not None and block.reencoded is not None:
                    session.head.reencoded = StoredLatents(block.reencoded)
        return replace(
            session,
            prompt=begin.prompt,
            noise=begin.noise,
            event=begin.event,
            flights=saved.flights,
            source=saved.source,
            reencode=reencode,
            other_models=saved.other_models,
            how="loaded",
        )
