"""Videos of many captions of the world, and what is to be seen in them: for scores of a model, of any length.

seen = [observe(frames) for frames in make_videos(model, vae, encode, captions, latent_frames=72)]
summarize([judge(clip, caption, 0, frames_of(18)) for clip, caption in zip(seen, captions)])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..config import RolloutConfig
from ..model.wan import CausalWan
from ..session.frame_counts import video_frames
from ..session.session import Session, for_one_image
from ..vae.wan_vae import VideoVAE

Encode = Callable[[str], Tensor]  # a caption -> its embeddings [1, rows, width]


def frames_of(latent_frames: int, temporal_factor: int = 4) -> int:
    """Of a video from its beginning."""
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
    """A video of each caption, in their order: frames [T, H, W, 3] in 0..1, on the CPU.

    Made by the code of inference, ``batch`` at a time, of ``latent_frames`` or up to a chunk more. config: None: the
    model's own. given: what each video begins with, frames [T, H, W, 3] in 0..1; one: image-to-video. They are part of
    it, as the VAE gives them back.
    """
    for number, first in enumerate(range(0, len(captions), batch)):
        part = range(first, min(first + batch, len(captions)))
        text = pad_sequence([encode(captions[index])[0] for index in part], batch_first=True)
        session = Session.start(model, text, None, config, seed + number, batch=len(part))
        decoder = vae.stream_decoder()
        pieces = []
        if given is not None:
            begin = torch.stack([given[index] for index in part])
            latents = vae.encode(begin)
            session = (for_one_image(session) if begin.shape[1] == 1 else session).with_context(latents)
            pieces.append(decoder(latents, at=0))
        while (at := session.frames) < latent_frames:
            session, latents = session.next_chunk()
            pieces.append(decoder(latents, at=at))
        model.release_cache()
        yield from torch.cat(pieces, dim=1).cpu()
