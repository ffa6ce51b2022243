"""Videos for many captions of the world, of any length, to score a model by.

Example::

    seen = [observe(frames) for frames in make_videos(model, vae, encode, captions, latent_frames=72)]
    summarize([judge(clip, caption, 0, frames_of(18)) for clip, caption in zip(seen, captions)])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sf_core.config import RolloutConfig
from sf_core.model.wan import CausalWan
from sf_core.session.beginning import for_one_image
from sf_core.session.frame_counts import video_frames
from sf_core.session.session import Session
from sf_core.vae.video_vae import VideoVAE

Encode = Callable[[str], Tensor]  # caption -> embeddings [1, rows, width]


def frames_of(latent_frames: int, temporal_factor: int = 4) -> int:
    """Return the number of frames of so many latent frames from a video's beginning."""
    return video_frames(latent_frames, temporal_factor)


@torch.no_grad()
def make_videos(
    model: CausalWan,
    vae: VideoVAE,
    encode: Encode,
    captions: Sequence[str],
    latent_frames: int,
    config: RolloutConfig | None = None,
    seed: int = 0,
    given: Sequence[Tensor] | None = None,
    batch: int = 20,
) -> Iterator[Tensor]:
    """Sample a video for each caption with the inference code.

    Args:
        model: The causal transformer.
        vae: Its decoder, and the encoder of ``given``.
        encode: Its text encoder.
        captions: The prompts.
        latent_frames: Length of each video, rounded up to whole chunks.
        config: Rollout settings; None for the model's own.
        seed: Of the first batch; each further batch adds one.
        given: Frames [T, H, W, 3] in 0..1 that each video begins with, one for image-to-video. They become part of the
            video as the VAE reconstructs them.
        batch: Videos sampled together.

    Yields:
        The videos in the order of the captions, [T, H, W, 3] in 0..1 on the CPU.
    """
    for number, first in enumerate(range(0, len(captions), batch)):
        part = range(first, min(first + batch, len(captions)))
        text = pad_sequence([encode(captions[index])[0] for index in part], batch_first=True)
        session = Session.start(model, text, None, config, seed + number, batch=len(part))
        decoder = vae.stream_decoder()
        pieces = []
        if given is not None:
            first_frames = torch.stack([given[index] for index in part])
            latents = vae.encode(first_frames)
            one_image = first_frames.shape[1] == 1
            session = (for_one_image(session) if one_image else session).with_context(latents)
            pieces.append(decoder(latents, at=0))
        while (at := session.frames) < latent_frames:
            session, latents = session.next_chunk()
            pieces.append(decoder(latents, at=at))
        model.release_cache()
        yield from torch.cat(pieces, dim=1).cpu()
