"""The Wan VAE: the reference's numbers, and a stream that is the whole video however it is cut."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sf_core.files.pixels import to_floats
from sf_core.vae import video_vae as vae_module
from sf_core.vae.layers import RMSNorm, StreamState, convolve, run
from sf_core.vae.loading import load_vae
from sf_core.vae.wan_vae import WAN_MEAN, WanVAE, WanVAEConfig
from tests.helpers import PARITY, assert_close, relative
from tests.vae.networks import Moves, frames_from, latents_for, stream, wan_vae_state

GOLDEN = load_vae(PARITY / "weights_vae.safetensors")


SMALL = load_vae(wan_vae_state())  # one residual block a level; 4 in space, 2 in time


# The reference ------------------------------------------------------------------------------------------------------


def test_decoding_gives_the_frames_of_the_reference() -> None:
    tensors = load_file(PARITY / "vae.safetensors")
    latents = tensors["latents"].transpose(1, 2)
    raw = tensors["decode.raw_bcthw"]
    z = latents * GOLDEN.std.view(-1, 1, 1, 1) + GOLDEN.mean.view(-1, 1, 1, 1)
    assert_close(run([GOLDEN.conv2, *GOLDEN.decoder.layers()], z, StreamState()), raw)
    frames = GOLDEN.decode(latents)
    assert_close(frames, (raw.movedim(1, -1).clamp(-1, 1) + 1) / 2)
    assert frames.dtype == torch.float32


def test_encoding_gives_the_latents_of_the_reference() -> None:
    tensors = load_file(PARITY / "vae.safetensors")
    frames = (tensors["encode.pixels_bcthw"].movedim(1, -1) + 1) / 2
    assert_close(GOLDEN.encode(frames), tensors["encode.latents"].transpose(1, 2))
    assert_close(GOLDEN.encode(frames[:, :1]), tensors["encode.latents_first_frame_only"].transpose(1, 2))


def test_a_sampled_video_decodes_to_the_frames_of_the_reference() -> None:
    latents = load_file(PARITY / "e2e.safetensors")["latents"].transpose(1, 2)
    theirs = load_file(PARITY / "e2e_frames.safetensors")["video_frames"].movedim(2, -1)
    streamed = stream(GOLDEN.stream_decoder(), latents, [3, 3])
    assert_close(streamed[:, [0, 1, 5, 20]], theirs)


def test_bfloat16_stays_near_float32() -> None:
    vae = load_vae(PARITY / "weights_vae.safetensors", dtype=torch.bfloat16)
    latents = latents_for(vae, 4)
    frames = vae.decode(latents)
    assert frames.dtype == torch.float32
    assert relative(frames, GOLDEN.decode(latents)) < 0.03
    assert vae.encode(frames).dtype == torch.float32


# Streamed is whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vae", "size", "batch"), [(GOLDEN, (2, 4), 1), (SMALL, (3, 5), 2), (SMALL, (1, 1), 1)])
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_a_stream_is_the_whole_video_to_the_bit_however_it_is_cut(
    vae: WanVAE, size: tuple[int, int], batch: int, sizes: list[int]
) -> None:
    latents = latents_for(vae, sum(sizes), size, batch)
    whole = vae.decode(latents)
    assert whole.shape[1] == frames_from(vae, sum(sizes))
    assert torch.equal(stream(vae.stream_decoder(), latents, sizes), whole)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_does_not_change_that(threads: int) -> None:
    latents, before = latents_for(GOLDEN, 6, (8, 8)), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(stream(GOLDEN.stream_decoder(), latents, [1, 2, 3]), GOLDEN.decode(latents))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("vae", [GOLDEN, SMALL])
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_frames_and_latents_do_not_depend_on_how_many_pass_at_a_time(
    vae: WanVAE, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = latents_for(vae, 8)
    frames = vae.decode(latents)
    encoded = vae.encode(frames)
    edge = 2 * vae.spatial_factor
    monkeypatch.setattr(vae_module, "PIXELS_AT_ONCE", passes * vae.temporal_factor * edge * edge)
    assert vae.latents_at_once(edge, edge) == passes
    assert torch.equal(vae.decode(latents), frames)
    assert torch.equal(vae.encode(frames), encoded)


@pytest.mark.parametrize("at", range(12))
def test_a_jump_to_any_latent_of_a_clip_gives_its_frames(at: int) -> None:
    latents = latents_for(GOLDEN, 12)
    whole, decoder = GOLDEN.decode(latents), GOLDEN.stream_decoder()
    if at != 5:
        decoder(latents[:, :, :5], at=0)
    frames = decoder(latents[:, :, at:], at=at, history=latents[:, :, :at])
    assert decoder.at == 12
    assert torch.equal(frames, whole[:, frames_from(GOLDEN, at) :])


@pytest.mark.parametrize("vae", [GOLDEN, SMALL])
def test_history_is_the_exact_reach_of_a_decoder(vae: WanVAE) -> None:
    reach = vae.history
    latents = latents_for(vae, reach + 5)
    whole, decoder = vae.decode(latents), vae.stream_decoder()
    assert decoder.history == reach
    for at in (reach, reach + 1, reach + 3):
        decoder.reset()
        frames = decoder(latents[:, :, at : at + 1], at=at, history=latents[:, :, at - reach : at])
        first = frames_from(vae, at)
        assert torch.equal(frames, whole[:, first : first + vae.temporal_factor])
        frames = decoder(latents[:, :, at + 1 :], at=at + 1)
        assert torch.equal(frames, whole[:, first + vae.temporal_factor :])
    too_short = StreamState(at_start=False)
    vae.decode_next(latents[:, :, 4 : reach + 3], too_short)
    frames = vae.decode_next(latents[:, :, reach + 3 :], too_short)
    assert not torch.equal(frames, whole[:, frames_from(vae, reach + 3) :])


def test_the_reach_follows_from_the_layers() -> None:
    # at the rate of latents: 2 + 8 + 3 x 4 + 2 frames; doubled; 3 x 4 + 2; doubled; 6 x 4 + 2: 150 frames, 4 a latent
    assert GOLDEN.history == 38
    # 2 + 8 + 2 x 4 + 2; doubled; 4 x 4 + 2: 58, 2 a latent
    assert SMALL.history == 29


def test_a_decoder_can_begin_another_video_at_any_time() -> None:
    decoder = SMALL.stream_decoder()
    one, other = latents_for(SMALL, 4, seed=1), latents_for(SMALL, 4, (3, 2), seed=2)
    decoder(one, at=0)
    assert torch.equal(decoder(other, at=0), SMALL.decode(other))
    frames = decoder(one[:, :, 2:], at=2, history=one[:, :, :2])
    assert torch.equal(frames, SMALL.decode(one)[:, frames_from(SMALL, 2) :])
    decoder(other[:, :, :2], at=0)  # now it stands at 2, but of frames of another size
    assert torch.equal(decoder(one[:, :, 2:], at=2, history=one[:, :, :2]), frames)


def test_two_decoders_of_one_vae_do_not_disturb_each_other() -> None:
    one, other = latents_for(SMALL, 4, seed=1), latents_for(SMALL, 4, seed=2)
    decoders = (SMALL.stream_decoder(), SMALL.stream_decoder())
    for at in range(4):
        for decoder, latents in zip(decoders, (one, other), strict=True):
            frames = decoder(latents[:, :, at : at + 1], at=at)
            assert torch.equal(frames, SMALL.decode(latents[:, :, : at + 1])[:, frames_from(SMALL, at) :])


def test_a_call_that_fails_leaves_the_decoder_where_it_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = latents_for(SMALL, 6)
    decoder, whole = SMALL.stream_decoder(), SMALL.decode(latents)
    decoder(latents[:, :, :3], at=0)

    def fail(*_: Any) -> Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SMALL.decoder.head[-1], "forward", fail)
        with pytest.raises(KeyboardInterrupt):
            decoder(latents[:, :, 3:], at=3)
        with pytest.raises(KeyboardInterrupt):
            decoder(latents[:, :, 1:], at=1, history=latents[:, :, :1])
    assert decoder.at == 3
    assert torch.equal(decoder(latents[:, :, 3:], at=3), whole[:, frames_from(SMALL, 3) :])


def test_memory_between_calls_does_not_grow() -> None:
    decoder, latents = SMALL.stream_decoder(), latents_for(SMALL, 12)
    assert decoder.cache_bytes == 0
    sizes = []
    for at in range(0, 12, 3):
        decoder(latents[:, :, at : at + 3], at=at)
        sizes.append(decoder.cache_bytes)
    assert len(set(sizes)) == 1
    kept = decoder._state._past.values()
    assert sizes[0] == sum(past.untyped_storage().nbytes() for past in kept)  # no view keeps more alive
    decoder.reset()
    assert (decoder.cache_bytes, decoder.at) == (0, 0)


def test_a_long_video_passes_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_module, "PIXELS_AT_ONCE", 2 * SMALL.temporal_factor * 8 * 8)
    seen: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].shape[2])

    hooks = [layer.register_forward_pre_hook(note) for layer in (SMALL.conv2, SMALL.conv1)]
    try:
        SMALL.encode(SMALL.decode(latents_for(SMALL, 9)))
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == 2 * [2, 2, 2, 2, 1]


def test_decoded_frames_encode_to_as_many_latents() -> None:
    for frames in (1, 2, 5):
        latents = latents_for(SMALL, frames, (2, 3))
        assert SMALL.encode(SMALL.decode(latents)).shape == latents.shape


# Convolutions and gradients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3, 3), 1, (0, 1, 1)), ((3, 1, 1), (2, 1, 1), 0), ((1, 1, 1), 1, 0), ((3, 3), 2, 1), ((1, 1), 1, 0)],
)
def test_the_fast_convolution_is_the_plain_one(kernel: tuple[int, ...], stride: Any, padding: Any, bias: bool) -> None:
    x = torch.randn(2, 6, *(5, 8, 7)[-len(kernel) :])
    weight, offset = torch.randn(4, 6, *kernel), torch.randn(4) if bias else None
    plain: Callable[..., Tensor] = F.conv3d if len(kernel) == 3 else F.conv2d
    theirs = plain(x, weight, offset, stride, padding)
    assert relative(convolve(x, weight, offset, stride, padding), theirs) < 1e-6
    wide = convolve(x.double(), weight.double(), offset if offset is None else offset.double(), stride, padding)
    assert relative(wide, theirs) < 1e-6
    assert torch.equal(convolve(x.requires_grad_(), weight, offset, stride, padding), theirs)


@pytest.mark.parametrize("way", ["decode", "encode"])
def test_gradients_pass_through_time(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_module, "PIXELS_AT_ONCE", 1)
    generator = torch.Generator().manual_seed(0)
    x = latents_for(SMALL, 3) if way == "decode" else torch.rand(1, 5, 8, 8, 3, generator=generator)
    call = getattr(SMALL, way)
    direction, weights = (torch.randn(like.shape, generator=generator) for like in (x, call(x)))
    gradient = torch.autograd.grad((call(x.requires_grad_()) * weights).sum(), x)[0]
    step = 1e-3
    with torch.no_grad():
        ahead, behind = (float((call(x + s * direction) * weights).double().sum()) for s in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=0.01)


def test_a_norm_of_narrow_features_takes_the_fused_kernel() -> None:
    """Torch warns where it cannot: weights in training are wider than what autocast gives them."""
    norm = RMSNorm(4)
    nn.init.ones_(norm.gamma)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
            warnings.simplefilter("error")
            normed = norm(torch.ones(1, 4, 1, 2, 2, dtype=torch.bfloat16))
    finally:
        torch.set_warn_always(False)
    assert normed.dtype == torch.bfloat16
    assert torch.equal(normed, torch.ones_like(normed))


def test_loaded_weights_are_frozen_and_a_stream_records_no_graph() -> None:
    assert not any(parameter.requires_grad for parameter in SMALL.parameters())
    latents = latents_for(SMALL, 2).requires_grad_()
    assert SMALL.decode(latents).requires_grad
    assert not SMALL.stream_decoder()(latents, at=0).requires_grad


# Loading ------------------------------------------------------------------------------------------------------------


def test_sizes_are_read_off_the_weights() -> None:
    assert (GOLDEN.channels, GOLDEN.spatial_factor, GOLDEN.temporal_factor) == (16, 8, 4)
    assert (SMALL.channels, SMALL.spatial_factor, SMALL.temporal_factor) == (6, 4, 2)
    assert GOLDEN.mean.tolist() == pytest.approx(WAN_MEAN)
    assert torch.equal(SMALL.mean, wan_vae_state()["mean"])


@pytest.mark.parametrize(
    "config",
    [
        WanVAEConfig(),
        WanVAEConfig(4, 16, (1, 2, 4, 4), 2, (False, True, True)),
        WanVAEConfig(6, 3, (2, 1, 5), 3, (True, False)),
        WanVAEConfig(8, 4, (1,), 1, ()),
    ],
)
def test_a_config_is_detected_from_the_shapes_that_it_gives(config: WanVAEConfig) -> None:
    assert WanVAEConfig.of(config.shapes) == config


def test_the_shapes_are_those_of_wan() -> None:
    golden = load_file(PARITY / "weights_vae.safetensors")
    assert WanVAEConfig(4).shapes == {name: tuple(value.shape) for name, value in golden.items()}
    assert sum(torch.Size(shape).numel() for shape in WanVAEConfig().shapes.values()) == 126_892_531  # Wan 2.1's own


def test_steps_that_do_not_go_with_the_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="temporal_downsample has 3 entries; expected 2"):
        WanVAEConfig(8, dim_mult=(1, 2, 4))


def test_files_and_state_dicts_load_alike(tmp_path: Path) -> None:
    state = wan_vae_state()
    save_file(state, tmp_path / "vae.safetensors")
    torch.save(state, tmp_path / "vae.pth")
    latents, other = latents_for(SMALL, 3), {"model.patch_embedding.weight": torch.zeros(1)}
    sources: list[Any] = [tmp_path / "vae.safetensors", str(tmp_path / "vae.pth"), SMALL.state_dict()]
    for prefix in ("vae.", "first_stage_model."):
        sources.append({f"{prefix}{name}": tensor for name, tensor in state.items()} | other)
    for source in sources:
        assert torch.equal(load_vae(source).decode(latents), SMALL.decode(latents))


def test_a_loaded_vae_shares_no_memory_with_its_source() -> None:
    state = wan_vae_state()
    vae = load_vae(state)
    state["conv2.weight"].zero_()
    assert torch.equal(vae.conv2.weight, SMALL.conv2.weight)


def without(*names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in wan_vae_state().items() if name not in names}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"not a Wan 2\.1 VAE: it has no 3-D convolution decoder\.conv1\.weight \(it has nothing"),
        ({"blocks.0.ffn.0.weight": torch.zeros(1)}, r"not a Wan 2\.1 VAE.*it has blocks\.0\.ffn\.0\.weight"),
        ({"decoder.conv_in.weight": torch.zeros(1)}, "names of diffusers.*Wan's original names"),
        (
            {"decoder.upsamples.0.upsamples.0.residual.2.weight": torch.zeros(1)},
            r"not a Wan 2\.2 VAE: it has no 3-D convolution decoder\.conv1",
        ),
        (wan_vae_state() | {"conv2.weight": torch.zeros(6, 6)}, r"no 3-D convolution conv2\.weight.*shape \[6, 6\]"),
        (without("conv2.bias"), r"not a whole Wan 2\.1 VAE: it lacks 1 tensors \(conv2\.bias"),
        (wan_vae_state() | {"more": torch.zeros(1)}, r"has 1 too many \(more"),
        (wan_vae_state() | {"conv2.bias": torch.zeros(7)}, r"conv2\.bias has the shape \[7\]; expected \[6\]"),
        (without("mean", "std"), r"6 latent channels, Wan 2\.1's 16; .*tensors mean and std"),
        (without("std"), r"lacks 1 tensors \(std"),
        (
            wan_vae_state() | {"decoder.middle.0.residual.2.weight": torch.zeros(8)},
            r"decoder\.middle\.0\.residual\.2\.weight has the shape \[8\]; expected \[8, 8, 3, 3, 3\]",
        ),
        (wan_vae_state() | {"encoder.conv1.weight": torch.zeros(0, 3, 3, 3, 3)}, "no Wan VAE has weights of such"),
        (without("encoder.downsamples.2.residual.2.weight"), "level 1 of its encoder has no residual block"),
        (without("encoder.downsamples.2.residual.0.gamma"), r"lacks 1 tensors \(encoder\.downsamples\.2\.residual"),
    ],
)
def test_what_is_no_wan_vae_is_refused(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_vae(state)


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 2, 2, 2), "16 channels, but this VAE is for 6: it is a VAE of another model"),
        ((6, 2, 2, 2), r"latents have the shape \[6, 2, 2, 2\]; expected \[batch, 6, frames, height, width\]"),
        ((1, 6, 0, 2, 2), r"latents have the shape \[1, 6, 0, 2, 2\]"),
    ],
)
def test_latents_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL.decode(torch.zeros(shape))
    with pytest.raises(ValueError, match=message):
        SMALL.stream_decoder()(torch.zeros(shape), at=0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 8, 8, 3), "4 frames cannot be encoded: a first frame and groups of 2.*nearest counts: 3 or 5"),
        ((1, 3, 10, 8, 3), "10 pixels high, no multiple of 4; the nearest: 8 or 12"),
        ((1, 3, 8, 3, 3), "3 pixels wide, no multiple of 4; the nearest: 4"),
        ((1, 3, 3, 8, 8), r"of the shape \[1, 3, 3, 8, 8\]; expected floating point"),
        ((3, 8, 8, 3), r"of the shape \[3, 8, 8, 3\]; expected floating point"),
        ((1, 0, 8, 8, 3), r"of the shape \[1, 0, 8, 8, 3\]"),
    ],
)
def test_frames_that_do_not_fit_are_refused_naming_the_nearest_that_do(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL.encode(torch.zeros(shape))


def test_frames_of_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames are torch\.uint8 .*expected floating point in 0\.\.1"):
        SMALL.encode(torch.zeros(1, 3, 8, 8, 3, dtype=torch.uint8))


def test_pixels_in_8_bits_are_encoded_like_the_same_frames_and_converted_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = torch.randint(0, 256, (1, 21, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("sf_core.vae.video_vae.PIXELS_AT_ONCE", 2 * 64 * 4)
    converted: list[int] = []

    def watched(part: Tensor) -> Tensor:
        converted.append(part.shape[1])
        return to_floats(part)

    monkeypatch.setattr("sf_core.vae.wan_vae.to_floats", watched)
    assert torch.equal(SMALL.encode_pixels(pixels), SMALL.encode(pixels.float() / 255))
    assert max(converted) <= 8
    with pytest.raises(ValueError, match="the nearest counts: 7 or 9"):
        SMALL.encode_pixels(pixels[:, :8])


def test_a_jump_without_enough_history_says_how_much_it_needs() -> None:
    decoder, latents = SMALL.stream_decoder(), latents_for(SMALL, 40)
    decoder(latents[:, :, :2], at=0)
    with pytest.raises(
        ValueError, match=r"stands at latent 2: to start at latent 7 it needs the 7 latents.*0 were given"
    ):
        decoder(latents[:, :, 7:], at=7)
    with pytest.raises(ValueError, match="start at latent 35 it needs the 29 latents before it as history=; 28 were"):
        decoder(latents[:, :, 35:], at=35, history=latents[:, :, 7:35])
    with pytest.raises(ValueError, match=r"history has the shape \[1, 6, 7, 1, 2\], which does not go with latents of"):
        decoder(latents[:, :, 7:], at=7, history=latents[:, :, :7, :1])
    with pytest.raises(ValueError, match=r"history has the shape \[6, 7, 2, 2\]"):
        decoder(latents[:, :, 7:], at=7, history=latents[0, :, :7])
    with pytest.raises(ValueError, match="latents of another size: to start at latent 2 it needs the 2 latents"):
        decoder(latents[:, :, 2:, :1], at=2)
    with pytest.raises(ValueError, match="at is -1; the first latent of a video is number 0"):
        decoder(latents, at=-1)
    assert torch.equal(decoder(latents[:, :, 2:], at=2), SMALL.decode(latents)[:, frames_from(SMALL, 2) :])


def test_a_clip_is_moved_to_the_weights_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_module, "PIXELS_AT_ONCE", 1)
    vae = load_vae(wan_vae_state()).to("meta")
    frames = torch.zeros(1, 1 + 8 * vae.temporal_factor, 16, 16, 3)
    with Moves() as moves:
        assert vae.encode(frames).shape[2] == 9
    assert max(moves.sizes) <= vae.temporal_factor * frames[0, 0].numel()
    assert len(moves.sizes) >= 9
