"""The Wan 2.2 VAE: the reference's numbers, and a stream that is the whole video however it is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import sf_core
from sf_core.memory_ledger import DecoderCost, Setup
from sf_core.vae import video_vae as vae_module
from sf_core.vae.layers import StreamState, run
from sf_core.vae.wan22_vae import WAN22_MEAN, DownLevel, UpLevel, Wan22VAE, Wan22VAEConfig
from sf_core.vae.wan_vae import WanVAE, WanVAEConfig
from tests.helpers import PARITY, assert_close, relative
from tests.vae.networks import frames_from, latents_for, random_vae_weights, stream

WEIGHTS = PARITY / "weights_vae22.safetensors"
GOLDEN = sf_core.load_vae(WEIGHTS)
OTHER = Wan22VAEConfig(4, 6, (1, 2, 2), 1, (False, True), 8)  # one residual block a level; 8 in space, 2 in time
SMALL = sf_core.load_vae(random_vae_weights(OTHER))


def test_decoding_gives_the_frames_of_the_reference() -> None:
    tensors = load_file(PARITY / "vae22.safetensors")
    latents = tensors["latents"].transpose(1, 2)
    theirs = tensors["output_pixels"].movedim(2, -1)
    z = latents * GOLDEN.std.view(-1, 1, 1, 1) + GOLDEN.mean.view(-1, 1, 1, 1)
    folded = run([GOLDEN.conv2, *GOLDEN.decoder.layers()], z, StreamState())
    assert_close(GOLDEN.unfold(folded).movedim(1, -1), theirs)
    assert_close(GOLDEN.decode(latents), (theirs.clamp(-1, 1) + 1) / 2)
    assert_close(stream(GOLDEN.stream_decoder(), latents, [2, 1, 1]), (theirs.clamp(-1, 1) + 1) / 2)


def test_encoding_gives_the_latents_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(PARITY / "vae22.safetensors")
    frames = (tensors["pixels"].movedim(2, -1) + 1) / 2
    theirs = tensors["output_latents"].transpose(1, 2)
    assert_close(GOLDEN.encode(frames), theirs)
    assert_close(GOLDEN.encode(frames[:, :1]), theirs[:, :, :1])
    monkeypatch.setattr(vae_module, "PIXELS_AT_ONCE", 1)  # latent by latent
    assert_close(GOLDEN.encode(frames), theirs)


@pytest.mark.parametrize(("vae", "size", "batch"), [(GOLDEN, (1, 2), 1), (SMALL, (3, 5), 2), (SMALL, (1, 1), 1)])
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_stream_is_the_whole_video_to_the_bit_however_it_is_cut(
    vae: WanVAE, size: tuple[int, int], batch: int, sizes: list[int]
) -> None:
    latents = latents_for(vae, sum(sizes), size, batch)
    whole = vae.decode(latents)
    assert whole.shape[1] == frames_from(vae, sum(sizes))
    assert torch.equal(stream(vae.stream_decoder(), latents, sizes), whole)
    assert torch.equal(vae.decode(latents[:, :, : sizes[0]]), whole[:, : frames_from(vae, sizes[0])])


@pytest.mark.parametrize("passes", [1, 3])
def test_latents_do_not_depend_on_how_many_pass_at_a_time(passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = SMALL.decode(latents_for(SMALL, 7))
    encoded = SMALL.encode(frames)
    monkeypatch.setattr(vae_module, "PIXELS_AT_ONCE", passes * SMALL.temporal_factor * 16 * 16)
    assert torch.equal(SMALL.encode(frames), encoded)


def test_history_is_the_exact_reach_of_the_decoder() -> None:
    reach = SMALL.history
    assert (reach, GOLDEN.history) == (29, 38)  # as Wan 2.1's: the shortcuts see no further back
    latents = latents_for(SMALL, reach + 3)
    whole, decoder = SMALL.decode(latents), SMALL.stream_decoder()
    frames = decoder(latents[:, :, reach:], at=reach, history=latents[:, :, :reach])
    assert torch.equal(frames, whole[:, frames_from(SMALL, reach) :])
    too_short = StreamState(at_start=False)
    SMALL.decode_next(latents[:, :, 1:reach], too_short)
    assert not torch.equal(SMALL.decode_next(latents[:, :, reach:], too_short), frames)


def test_another_shortcut_gives_other_frames_and_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(PARITY / "vae22.safetensors")
    latents, theirs = tensors["latents"].transpose(1, 2), tensors["output_latents"].transpose(1, 2)
    frames = (tensors["pixels"].movedim(2, -1) + 1) / 2
    broken = sf_core.load_vae(WEIGHTS)
    up, down = broken.decoder.upsamples[0], broken.encoder.downsamples[1]
    assert isinstance(up, UpLevel)
    assert isinstance(down, DownLevel)

    def keep_first_frame(x: Tensor, at_start: bool) -> Tensor:
        both = UpLevel._shortcut(up, x, at_start=False)
        return both[:, :, :-1] if at_start else both

    monkeypatch.setattr(up, "_shortcut", keep_first_frame)
    assert relative(broken.decode(latents), GOLDEN.decode(latents)) > 1e-3
    monkeypatch.setattr(down, "_shortcut", lambda x: DownLevel._shortcut(down, x.roll(1, 1)))
    assert relative(broken.encode(frames), theirs) > 1e-3


def test_sizes_and_normalisation_come_from_the_weights() -> None:
    assert isinstance(GOLDEN, Wan22VAE)
    assert (GOLDEN.channels, GOLDEN.spatial_factor, GOLDEN.temporal_factor) == (48, 16, 4)
    assert (SMALL.channels, SMALL.spatial_factor, SMALL.temporal_factor) == (6, 8, 2)
    assert GOLDEN.mean.tolist() == pytest.approx(WAN22_MEAN)
    for config in (Wan22VAEConfig(), OTHER, Wan22VAEConfig(8, 5, (1, 1, 4), 3, (True, True), 16)):
        assert Wan22VAEConfig.of(config.shapes) == config
    assert sum(torch.Size(shape).numel() for shape in Wan22VAEConfig().shapes.values()) == 704_688_668  # the published


def test_the_file_is_recognised_by_its_content_under_every_published_name(tmp_path: Path) -> None:
    state = load_file(WEIGHTS)
    torch.save(state, tmp_path / "Wan2.2_VAE.pth")
    save_file(state, tmp_path / "wan_2.1_vae.safetensors")  # a name that is wrong changes nothing
    latents = latents_for(GOLDEN, 2, (1, 1))
    for source in (
        tmp_path / "Wan2.2_VAE.pth",
        tmp_path / "wan_2.1_vae.safetensors",
        {"vae." + k: state[k] for k in state},
    ):
        assert torch.equal(sf_core.load_vae(source).decode(latents), GOLDEN.decode(latents))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("decoder.head.2.weight", r"not a Wan 2\.2 VAE: it has no 3-D convolution decoder\.head\.2\.weight"),
        ("decoder.upsamples.0.upsamples.0.residual.2.bias", r"not a whole Wan 2\.2 VAE: it lacks 1 tensors"),
        ("encoder.downsamples.2.downsamples", r"level 2 of its encoder has no residual block"),
    ],
)
def test_a_damaged_file_is_refused_by_name(lost: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sf_core.load_vae({name: value for name, value in load_file(WEIGHTS).items() if not name.startswith(lost)})


def test_latents_of_wan_21_are_refused() -> None:
    with pytest.raises(ValueError, match="16 channels, but this VAE is for 48"):
        GOLDEN.decode(torch.zeros(1, 16, 1, 2, 2))


def test_the_ledger_knows_the_decoder() -> None:
    with torch.device("meta"):
        vae = Wan22VAE(Wan22VAEConfig()).to(torch.bfloat16)
        newer, older = DecoderCost.of(vae), DecoderCost.of(WanVAE(WanVAEConfig()).to(torch.bfloat16))
    assert (newer.spatial_factor, newer.weights) == (16, 2 * 704_688_668)
    assert older.peak / 2 < newer.peak < older.peak  # its last level has a quarter of the pixels and 2.7 x the channels
    assert not newer.replaceable  # no published TAEHV decodes its latents here
    setup = Setup(sf_core.RolloutConfig(), (30, 52), decoder=newer)
    state = StreamState()
    vae.decode_next(torch.empty(1, 48, 2, 30, 52, device="meta"), state)
    assert newer.state(setup) == pytest.approx(state.bytes, rel=0.02)
