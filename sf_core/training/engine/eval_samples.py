"""Samples of a model in training: videos of fixed prompts, and a rollout longer than the training length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from ...config import RolloutConfig
from ...model.wan import CausalWan
from ...session.session import Session
from ...session.stream_host import Decoder


class VAE(Protocol):
    """An autoencoder that decodes chunk by chunk: `sf_core.load_vae`, `sf_core.load_taehv`, the tiny model's."""

    def stream_decoder(self) -> Decoder:
        """Return a decoder of one video."""
        ...


class Sampler:
    """A sampler with the code of inference, so that samples look as they will to users.

    Args:
        prompts: Prompts to sample. Prompt i always has the seed ``seed + i``, so samples of different steps compare.
        encode: Text encoder, prompt -> embeddings [1, rows, width]; only the constructor calls it, once per prompt.
        vae: VAE of the videos; None: latents only.
        latent_size: (height, width) of latents.
        config: Rollout settings.
        trained_frames: Training length in latent frames.
        long: Length of `long_rollout` in training lengths.
        seed: Seed of the first prompt.
        fps: Frame rate of the videos.

    Raises:
        ValueError: For no prompts, and for a training length that is not a whole number of chunks.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        encode: Callable[[str], Tensor],
        vae: VAE | None,
        latent_size: tuple[int, int],
        config: RolloutConfig,
        trained_frames: int,
        long: int = 4,
        seed: int = 0,
        fps: float = 16,
    ) -> None:
        if not prompts:
            raise ValueError("there is no prompt to sample; give one or more")
        if long < 1:
            raise ValueError(f"long is {long}; expected 1 or more times the training length")
        first = config.frames_of_block(0)
        config.check_frames(max(1, trained_frames))
        self.prompts = list(prompts)
        self.vae = vae
        self.latent_size = latent_size
        self.config = config
        self.trained_frames = trained_frames
        self.trained_chunks = 1 + (trained_frames - first) // config.chunk_frames
        self.long = long
        self.seed = seed
        self.fps = fps
        with torch.no_grad():
            self._texts = [encode(prompt).detach().cpu() for prompt in prompts]

    def videos(self, model: CausalWan) -> Tensor | None:
        """Sample all prompts over the training length.

        The model's modes are restored, and its live caches are released.

        Returns:
            Frames [prompts, T, H, W, 3] in 0..1, on the CPU; None without a VAE.

        Raises:
            FloatingPointError: If the model's output has NaN or Inf.
        """
        if self.vae is None:
            return None
        with _inference_mode(model):
            videos = [self._roll_out(model, index, self.trained_frames)[1] for index in range(len(self.prompts))]
        return torch.cat([frames for frames in videos if frames is not None])

    def long_rollout(self, model: CausalWan) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Sample the first prompt over at least ``long`` times the training length.

        The model's modes are restored, and its live caches are released.

        Returns:
            Frames [1, T, H, W, 3], None without a VAE; and the `health` of the latents per chunk.

        Raises:
            FloatingPointError: If the model's output has NaN or Inf.
        """
        with _inference_mode(model):
            chunks, pictures = self._roll_out(model, 0, self.long * self.trained_frames)
        return pictures, health(chunks)

    def _roll_out(self, model: CausalWan, index: int, frames: int) -> tuple[list[Tensor], Tensor | None]:
        """Return latents per chunk and frames of one prompt, over ``frames`` latent frames; both on the CPU."""
        seed = self.seed + index
        session = Session.start(model, self._texts[index], self.latent_size, self.config, seed)
        decoder = None if self.vae is None else self.vae.stream_decoder()
        chunks, pictures = [], []
        while session.frames < frames:
            start = session.frames
            session, latents = session.next_chunk()
            chunks.append(latents.cpu())
            if decoder is not None:
                pictures.append(decoder(latents, at=start).cpu())
        return chunks, torch.cat(pictures, dim=1) if pictures else None


@contextmanager
def _inference_mode(model: CausalWan) -> Iterator[None]:
    """Run the body without gradients and in evaluation mode; then restore each module's mode and release caches."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.release_cache()
        for module, training in modes:
            module.training = training


def health(chunks: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return statistics of a rollout's latents per chunk; a healthy rollout has flat curves.

    Args:
        chunks: Latents per chunk [B, C, F, h, w].

    Returns:
        Curves, float32 [chunks] each:
        ``spread``: standard deviation; it grows as colours over-saturate and falls as the picture blurs.
        ``level``: mean absolute value.
        ``change``: mean absolute difference to the frame before; it falls to zero as a video freezes.
        ``shift``: root mean square, over channels, of the distance of the channel means from those of the first chunk.
    """
    chunks = [chunk.float() for chunk in chunks]
    frames = torch.cat(chunks, dim=2)
    means = torch.stack([chunk.mean(dim=(0, 2, 3, 4)) for chunk in chunks])
    return {
        "spread": torch.stack([chunk.std() for chunk in chunks]),
        "level": torch.stack([chunk.abs().mean() for chunk in chunks]),
        "change": _change(frames, [chunk.shape[2] for chunk in chunks]),
        "shift": (means - means[0]).square().mean(dim=1).sqrt(),
    }


def _change(frames: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the mean change per chunk; the video's first frame takes the change of the second."""
    by_frame = frames.diff(dim=2).abs().mean(dim=(0, 1, 3, 4))
    if not len(by_frame):
        return torch.zeros(len(sizes))
    return torch.stack([part.mean() for part in torch.cat([by_frame[:1], by_frame]).split(list(sizes))])
