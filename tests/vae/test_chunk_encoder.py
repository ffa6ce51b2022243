"""A video that is encoded part by part gives the latents of the whole, to the bit."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sf_core import tiny
from sf_core.vae.taehv import load_taehv
from sf_core.vae.video_vae import VideoVAE
from tests.vae.networks import taehv_state

NETWORKS = {"wan": tiny.load_vae(), "taehv": load_taehv(taehv_state())}


def clip(vae: VideoVAE, latents: int, size: int = 16) -> Tensor:
    frames = 1 + vae.temporal_factor * (latents - 1)
    return torch.rand(1, frames, size, size, 3, generator=torch.Generator().manual_seed(latents))


def padded(vae: VideoVAE, frames: Tensor) -> Tensor:
    """The frames that a stream gives at the end of a clip, the last of which stands for those after it."""
    return torch.cat([frames, frames[:, -1:].expand(-1, vae.lookahead, -1, -1, -1)], dim=1)


@pytest.mark.parametrize("name", NETWORKS)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), sparing=st.booleans())
def test_whole_and_streamed_are_the_same_bits_whatever_the_partition(
    name: str, sizes: list[int], sparing: bool
) -> None:
    vae = NETWORKS[name]
    frames, encoder = clip(vae, sum(sizes)), vae.stream_encoder()
    encoder.sparing = sparing
    encoder.reset()
    ends = [encoder.frames_for(latents) for latents in accumulate(sizes)]
    parts = padded(vae, frames).tensor_split(ends[:-1], dim=1)
    assert torch.equal(torch.cat([encoder(part) for part in parts], dim=2), vae.encode(frames))
    assert encoder.at == sum(sizes)


@pytest.mark.parametrize("vae", NETWORKS.values(), ids=NETWORKS)
def test_frames_of_no_whole_latents_are_refused_and_change_nothing(vae: VideoVAE) -> None:
    frames, encoder = padded(vae, clip(vae, 3)), vae.stream_encoder()
    first = encoder.frames_for(1)
    whole = encoder(frames)
    encoder.reset()
    encoder(frames[:, :first])
    for count in (0, 3, 5):
        with pytest.raises(ValueError, match=f"{count} frames behind latent 1 make no whole latents: expected 4,"):
            encoder(frames[:, first : first + count])
    assert torch.equal(encoder(frames[:, first:]), whole[:, :, 1:])


@pytest.mark.parametrize("vae", NETWORKS.values(), ids=NETWORKS)
def test_an_encoder_that_runs_out_of_memory_goes_on_sparingly(vae: VideoVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, encoder, encode = padded(vae, clip(vae, 3)), vae.stream_encoder(), vae.encode_next
    first = encoder.frames_for(1)
    parts = [encoder(frames[:, :first])]

    def fails(frames: Tensor, state: object) -> Tensor:
        if not encoder.sparing:
            raise torch.OutOfMemoryError
        return encode(frames, state)  # type: ignore[arg-type]

    monkeypatch.setattr(vae, "encode_next", fails)
    parts.append(encoder(frames[:, first:]))
    monkeypatch.undo()
    assert encoder.sparing
    assert torch.equal(torch.cat(parts, dim=2), vae.encode(clip(vae, 3)))
