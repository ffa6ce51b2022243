"""What a model in training can do by now: videos of fixed prompts, and a rollout longer than it was trained for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from ...config import RolloutConfig
from ...model.wan import CausalWan
from ...session.session import Session
from ...session.streaming import Decoder


class VAE(Protocol):
    """An autoencoder that decodes chunk by chunk: `sf_core.load_vae`, `sf_core.load_taehv`, the tiny model's."""

    def stream_decoder(self) -> Decoder: ...


class Sampler:
    """Samples with the very code of inference, so that what is shown is what the model will give its users.

    prompts: what to sample; prompt i always with the seed ``seed + i``, so videos of different steps compare.
    encode: text to embeddings [1, rows, width]; called here, once a prompt, and not kept.
    vae: None: latents only, and no videos. latent_size: (height, width) of latents.
    trained_frames: latent frames that the model is trained to roll out. long: how many times as many
    `long_rollout` makes. fps: of the videos.
    Raises ValueError for no prompts, and for a training length that does not cut into chunks.
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
        """Frames [prompts, T, H, W, 3] in 0..1, on the CPU, over the training length; None without a VAE.

        The model comes out as it went in, without live caches. Raises FloatingPointError if it gives NaN or Inf.
        """
        if self.vae is None:
            return None
        with _at_inference(model):
            made = [self._roll_out(model, index, self.trained_frames)[1] for index in range(len(self.prompts))]
        return torch.cat([pictures for pictures in made if pictures is not None])

    def long_rollout(self, model: CausalWan) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The first prompt over at least ``long`` times the training length, and how its latents fare.

        Returns frames [1, T, H, W, 3], None without a VAE, and `health` by chunk. The model comes out as it went in,
        without live caches. Raises FloatingPointError if it gives NaN or Inf.
        """
        with _at_inference(model):
            chunks, pictures = self._roll_out(model, 0, self.long * self.trained_frames)
        return pictures, health(chunks)

    def _roll_out(self, model: CausalWan, index: int, frames: int) -> tuple[list[Tensor], Tensor | None]:
        """Latents by chunk and pictures of one prompt, over ``frames`` latent frames; both on the CPU."""
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
def _at_inference(model: CausalWan) -> Iterator[None]:
    """No gradients and evaluation mode; afterwards each module is in the mode it was in, and no cache is live."""
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
    """Signals of a rollout's ``chunks`` [B, C, F, h, w], float32 [chunks] each. Flat is healthy.

    spread: standard deviation; grows as colours over-saturate, falls as the picture blurs.
    level: mean absolute value. change: mean absolute difference to the frame before; falls to zero as a video freezes.
    shift: distance (root mean square over channels) of the channel means from the first chunk's, 0 there.
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
    """By chunk. The video's first frame has none before it and is given the change of the second."""
    by_frame = frames.diff(dim=2).abs().mean(dim=(0, 1, 3, 4))
    if not len(by_frame):
        return torch.zeros(len(sizes))
    return torch.stack([part.mean() for part in torch.cat([by_frame[:1], by_frame]).split(list(sizes))])
