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
from .blocks import NOTHING
from .checks import check_prompt
from .kept_chunk import check_kept, kept_flights, key_of_next, tensors_of_newest
from .next_chunk import NextChunk, Progress
from .next_settings import NextSettings
from .published_noise import check_noise
from .record import Reencode
from .session_file import save_session
from .session_reading import open_session


@dataclass(frozen=True, eq=False, repr=False)
class Session(NextSettings):
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
