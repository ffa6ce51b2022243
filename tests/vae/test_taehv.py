"""The tiny autoencoder: against a plain spelling of it, and as a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from sf_core.vae import video_vae as vae_module
from sf_core.vae.layers import StreamState
from sf_core.vae.taehv import load_taehv
from tests.helpers import relative
from tests.vae.networks import Moves, frames_from, latents_for, stream, taehv_state

STATE = taehv_state()
TINY = load_taehv(STATE)


def plain(name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = STATE[f"{name}.weight"]
    return F.conv2d(x, weight, STATE.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2)


def plain_memory_blocks(part: str, first: int, x: Tensor) -> Tensor:
    for index in range(first, first + 3):
        both = torch.cat([x, torch.cat([torch.zeros_like(x[:1]), x[:-1]])], dim=1)
        y = plain(f"{part}.{index}.conv.0", both).relu()
        x = (plain(f"{part}.{index}.conv.4", plain(f"{part}.{index}.conv.2", y).relu()) + x).relu()
    return x


def plain_decode(latents: Tensor) -> Tensor:
    """The original's decoder, all of one video [C, F, H, W] at once; weights by name."""
    x = plain("decoder.1", torch.tanh(latents.transpose(0, 1) / 3) * 3).relu()
    for stage in range(3):
        x = F.interpolate(plain_memory_blocks("decoder", 3 + 6 * stage, x), scale_factor=2)
        x = plain(f"decoder.{7 + 6 * stage}.conv", x).reshape(-1, x.shape[1], *x.shape[2:])
        x = plain(f"decoder.{8 + 6 * stage}", x)
    return plain("decoder.22", x.relu()).clamp(0, 1)[3:].movedim(1, -1)


def plain_encode(frames: Tensor) -> Tensor:
    """The original's encoder of one video [T, H, W, 3], its last frame repeated to fill up the last latent."""
    x = plain("encoder.0", torch.cat([frames, frames[-1:].expand(3, -1, -1, -1)]).movedim(-1, 1)).relu()
    for stage, time in enumerate((2, 2, 1)):
        x = plain(f"encoder.{2 + 5 * stage}.conv", x.reshape(-1, x.shape[1] * time, *x.shape[2:]))
        x = plain_memory_blocks("encoder", 4 + 5 * stage, plain(f"encoder.{3 + 5 * stage}", x, stride=2))
    return plain("encoder.17", x).transpose(0, 1)


def test_decoding_is_the_original_network_without_its_first_frames() -> None:
    latents = latents_for(TINY, 5, (3, 4), batch=2)
    frames = TINY.decode(latents)
    assert frames.shape == (2, 17, 24, 32, 3)
    assert frames.dtype == torch.float32
    for ours, one in zip(frames, latents, strict=True):
        assert relative(ours, plain_decode(one)) < 2e-6


def test_encoding_is_the_original_network() -> None:
    frames = torch.rand(2, 9, 16, 24, 3, generator=torch.Generator().manual_seed(0))
    latents = TINY.encode(frames)
    assert latents.shape == (2, 16, 3, 2, 3)
    for ours, one in zip(latents, frames, strict=True):
        assert relative(ours, plain_encode(one)) < 2e-6


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_a_stream_is_the_whole_video_to_the_bit_however_it_is_cut(sizes: list[int]) -> None:
    latents = latents_for(TINY, sum(sizes), (2, 3), batch=2)
    assert torch.equal(stream(TINY.stream_decoder(), latents, sizes), TINY.decode(latents))


def test_frames_and_latents_do_not_depend_on_how_many_pass_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = latents_for(TINY, 5)
    frames = TINY.decode(latents)
    encoded = TINY.encode(frames)
    monkeypatch.setattr(vae_module, "PIXELS_AT_ONCE", 1)
    assert torch.equal(TINY.decode(latents), frames)
    assert torch.equal(TINY.encode(frames), encoded)


@pytest.mark.parametrize("at", range(12))
def test_a_jump_to_any_latent_of_a_clip_gives_its_frames(at: int) -> None:
    latents = latents_for(TINY, 12)
    whole, decoder = TINY.decode(latents), TINY.stream_decoder()
    frames = decoder(latents[:, :, at:], at=at, history=latents[:, :, max(0, at - decoder.history) : at])
    assert torch.equal(frames, whole[:, frames_from(TINY, at) :])


def test_history_is_the_exact_reach_of_a_decoder() -> None:
    # 3 frames at the rate of latents; 3 more; doubled; 3; doubled: 30, at 4 a latent
    assert TINY.history == TINY.stream_decoder().history == 8
    latents = latents_for(TINY, 14)
    too_short = StreamState(at_start=False)
    TINY.decode_next(latents[:, :, 6:13], too_short)
    frames = TINY.decode_next(latents[:, :, 13:], too_short)
    assert not torch.equal(frames, TINY.decode(latents)[:, frames_from(TINY, 13) :])


def test_memory_between_calls_does_not_grow() -> None:
    decoder, latents = TINY.stream_decoder(), latents_for(TINY, 9)
    sizes = []
    for at in range(0, 9, 3):
        decoder(latents[:, :, at : at + 3], at=at)
        sizes.append(decoder.cache_bytes)
    assert sizes == [4 * 3 * (12 * 4 + 8 * 16 + 6 * 64)] * 3  # one frame of each memory block


def test_architectures_are_read_off_the_weights() -> None:
    assert (TINY.channels, TINY.spatial_factor, TINY.temporal_factor) == (16, 8, 4)
    other = load_taehv(taehv_state((8, 6, 4, 4), (2, 2, 2), channels=5))
    assert (other.channels, other.spatial_factor, other.temporal_factor) == (5, 8, 8)
    frames = other.decode(latents_for(other, 3))
    assert frames.shape == (1, 17, 16, 16, 3)
    assert other.encode(frames).shape == (1, 5, 3, 2, 2)


def test_files_and_state_dicts_load_alike(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "taew2_1.pth")
    save_file(STATE, tmp_path / "taew2_1.safetensors")
    latents = latents_for(TINY, 2)
    sources: list[Any] = [tmp_path / "taew2_1.pth", tmp_path / "taew2_1.safetensors", TINY.state_dict()]
    for source in sources:
        assert torch.equal(load_taehv(source).decode(latents), TINY.decode(latents))
    half = load_taehv(STATE, dtype=torch.bfloat16)
    assert relative(half.decode(latents), TINY.decode(latents)) < 0.03


def test_a_file_of_the_decoder_alone_decodes() -> None:
    decoder = load_taehv({name: tensor for name, tensor in STATE.items() if name.startswith("decoder.")})
    latents = latents_for(TINY, 2)
    assert torch.equal(decoder.decode(latents), TINY.decode(latents))
    with pytest.raises(ValueError, match="holds only the decoder; encode with the Wan VAE"):
        decoder.encode(torch.zeros(1, 5, 16, 16, 3))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"not a TAEHV: it has no decoder\.1\.weight .*\(it has nothing"),
        ({"decoder.conv1.weight": torch.zeros(1)}, r"not a TAEHV: .*\(it has decoder\.conv1\.weight"),
        (taehv_state(colours=12), r"does not end in 3 colours: .*Wan 2\.1's is taew2_1"),
        ({k: v for k, v in STATE.items() if k != "decoder.1.bias"}, r"lacks 1 tensors \(decoder\.1\.bias"),
        ({k: v for k, v in STATE.items() if k != "decoder.4.conv.2.bias"}, r"not a whole TAEHV: it lacks 1 tensors"),
        (STATE | {"more": torch.zeros(1)}, r"has 1 too many \(more"),
        (STATE | {"decoder.1.bias": torch.zeros(3)}, r"decoder\.1\.bias has the shape \[3\]; expected \[12\]"),
        (STATE | {"decoder.7.conv.weight": torch.zeros(3, 12, 1, 1)}, r"has weights of such shapes"),
        (STATE | {"decoder.8.weight": torch.zeros(3)}, r"has weights of such shapes"),
    ],
)
def test_what_is_no_taehv_is_refused(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_taehv(state)


def test_latents_and_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="12 channels, but this VAE is for 16: it is a VAE of another model"):
        TINY.decode(torch.zeros(1, 12, 2, 2, 2))
    with pytest.raises(ValueError, match=r"4 frames cannot be encoded: .*nearest counts: 1 or 5"):
        TINY.encode(torch.zeros(1, 4, 16, 16, 3))
    with pytest.raises(ValueError, match="20 pixels wide, no multiple of 8; the nearest: 16 or 24"):
        TINY.encode(torch.zeros(1, 5, 16, 20, 3))


def test_a_clip_is_moved_to_the_weights_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_module, "PIXELS_AT_ONCE", 1)
    vae = load_taehv(taehv_state()).to("meta")
    frames = torch.zeros(1, 1 + 8 * vae.temporal_factor, 16, 16, 3)
    with Moves() as moves:
        assert vae.encode(frames).shape[2] == 9
    assert max(moves.sizes) <= vae.temporal_factor * frames[0, 0].numel()
    assert len(moves.sizes) >= 9
