"""Training of a small Wan VAE: the true architecture, a start that images can train, a file that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import sf_core
from sf_core.files.safetensors_file import write_tensors
from sf_core.tiny.world import World
from sf_core.training.losses.autoencoder import AutoencoderLoss, decode_pixels, encode_moments, measure_latents, new_vae
from sf_core.vae.loading import load_vae
from sf_core.vae.wan_vae import WanVAE
from tests.helpers import PARITY, relative


def small_vae(seed: int = 0) -> WanVAE:
    return new_vae(4, z_dim=4, dim_mult=(1, 2), temporal_downsample=(True,), seed=seed)


def clips(count: int, frames: int, size: int = 32, seed: int = 0) -> Tensor:
    world = World(size=size, frames=frames, seed=seed)
    return torch.stack([world[index][0] for index in range(count)])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(vae: WanVAE, steps: int) -> WanVAE:
    optimiser = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    for step in range(steps):
        optimiser.zero_grad()
        AutoencoderLoss().loss(vae, clips(4, 5, seed=step), rng=generator(step)).value.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1)
        optimiser.step()
    return vae


def test_steps_that_do_not_go_with_the_levels_are_said() -> None:
    with pytest.raises(ValueError, match="temporal_downsample has 3 entries; expected 2"):
        new_vae(8, dim_mult=(1, 2, 4))


def test_a_new_vae_is_a_wan_vae_to_be_trained_and_the_seed_tells_which() -> None:
    before = torch.random.get_rng_state()
    vae = new_vae(8, seed=3)
    assert (vae.spatial_factor, vae.temporal_factor, vae.channels) == (8, 4, 16)
    assert all(p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in vae.parameters())
    again, other = new_vae(8, seed=3).state_dict(), new_vae(8, seed=4).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in vae.state_dict().items())
    assert not torch.equal(other["conv1.weight"], again["conv1.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_new_vae_takes_a_still_video_for_its_image() -> None:
    vae = new_vae(8).requires_grad_(False)
    image = clips(2, 1)
    latent = vae.encode(image)
    assert latent.std() > 0.1
    still = vae.encode(image.expand(-1, 9, -1, -1, -1))
    assert still.shape[2] == 3
    assert relative(still, latent.expand_as(still)) < 1e-5
    frames = vae.decode(still)
    assert relative(frames, vae.decode(latent).expand_as(frames)) < 1e-5


def test_a_new_vae_passes_frame_by_frame_what_lies_in_a_video() -> None:
    vae = new_vae(8).requires_grad_(False)
    video = clips(1, 9)
    latents = vae.encode(video)
    for latent, frame in enumerate((0, 1, 5)):  # the first of its four: Wan's middle tap, twice
        assert relative(latents[:, :, latent : latent + 1], vae.encode(video[:, frame : frame + 1])) < 1e-5


def test_a_new_vaes_latents_have_little_noise() -> None:
    with torch.no_grad():
        _, log_variance = encode_moments(new_vae(8), clips(2, 5))
    assert -6 < log_variance.mean() < -2


def test_moments_and_pixels_are_those_of_the_vae_itself() -> None:
    vae = load_vae(PARITY / "weights_vae.safetensors")
    video = clips(1, 5)
    latents = vae.encode(video)
    mean, std = (values[:, None, None, None] for values in (vae.mean, vae.std))
    raw, _ = encode_moments(vae, video)
    assert relative((raw - mean) / std, latents) < 1e-5
    frames = (decode_pixels(vae, raw) / 2 + 0.5).clamp(0, 1)
    assert relative(frames, vae.decode(latents)) < 1e-5


def test_every_weight_is_trained() -> None:
    vae = new_vae(8)
    AutoencoderLoss().loss(vae, clips(2, 9), rng=generator(0)).value.backward()
    untouched = [name for name, p in vae.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not untouched
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in vae.parameters())


def test_gradients_are_finite_where_a_picture_is_all_one_colour() -> None:
    vae = new_vae(8)
    for gray in (0.0, 0.5, 1.0):
        AutoencoderLoss().loss(vae, torch.full((1, 5, 16, 16, 3), gray), rng=generator(0)).value.backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) < 1e4 for p in vae.parameters())


def test_a_decoder_can_be_trained_alone() -> None:
    vae = small_vae()
    vae.encoder.requires_grad_(False)
    vae.conv1.requires_grad_(False)
    AutoencoderLoss(kl_weight=0).loss(vae, clips(1, 5), rng=generator(0)).value.backward()
    with_gradient = {name.split(".")[0] for name, p in vae.named_parameters() if p.grad is not None}
    assert with_gradient == {"conv2", "decoder"}


def test_the_loss_is_the_sum_that_it_says() -> None:
    vae, video = small_vae(), clips(2, 5)
    noise = torch.randn(2, 4, 3, 16, 16, generator=generator(1))
    loss = AutoencoderLoss(kl_weight=0.25, mse_weight=7).loss(vae, video, noise)
    with torch.no_grad():
        mean, log_variance = encode_moments(vae, video)
        error = decode_pixels(vae, mean + (log_variance / 2).exp() * noise) - (2 * video - 1)
        normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
        kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).mean()
        steps = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        expected = error.abs().mean() + 7 * error.square().mean() + 0.5 * steps + 0.25 * kl
    torch.testing.assert_close(loss.value.detach(), expected)
    torch.testing.assert_close(loss.logs["psnr"], -10 * (error / 2).square().mean().log10())
    assert not any(value.requires_grad for value in loss.logs.values())


def test_moments_that_are_given_take_the_place_of_the_encoder() -> None:
    vae, video = small_vae(), clips(2, 5)
    with torch.no_grad():
        moments = encode_moments(vae, video)
    loss = AutoencoderLoss().loss(vae, video, rng=generator(3), moments=moments)
    assert torch.equal(loss.value, AutoencoderLoss().loss(vae, video, rng=generator(3)).value)
    loss.value.backward()
    with_gradient = {name.split(".")[0] for name, p in vae.named_parameters() if p.grad is not None}
    assert with_gradient == {"conv2", "decoder"}


def test_noise_comes_from_where_it_is_said_to_come_from() -> None:
    vae, video = small_vae(), clips(1, 5)
    before = torch.random.get_rng_state()

    def value(noise: Tensor | None = None, rng: torch.Generator | None = None) -> float:
        return float(AutoencoderLoss().loss(vae, video, noise, rng).value.detach())

    assert value(rng=generator(3)) == value(torch.randn(1, 4, 3, 16, 16, generator=generator(3)))
    assert value(rng=generator(3)) != value(rng=generator(4))
    assert value() == value(torch.zeros(1, 4, 3, 16, 16))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_frames_and_noise_that_do_not_fit_are_said() -> None:
    with pytest.raises(ValueError, match="6 frames cannot be encoded"):
        AutoencoderLoss().loss(small_vae(), clips(1, 6))
    with pytest.raises(ValueError, match=r"noise has the shape \[1\]; the latents have \[1, 4, 3, 16, 16\]"):
        AutoencoderLoss().loss(small_vae(), clips(1, 5), torch.zeros(1))


@pytest.mark.slow
def test_a_few_steps_make_the_loss_less_and_the_same_ones_give_the_same() -> None:
    unseen = clips(8, 5, seed=99)

    def loss_of(vae: WanVAE) -> float:
        with torch.no_grad():
            return float(AutoencoderLoss().loss(vae, unseen).value)

    vae = trained(new_vae(8), 15)
    assert loss_of(vae) < 0.6 * loss_of(new_vae(8))
    again = trained(new_vae(8), 15).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in vae.state_dict().items())


def test_measured_latents_are_normalised_as_the_decoder_was_trained_on_them() -> None:
    """With their noise they have mean 0 and spread 1; a channel of noise alone stays small without it."""
    vae = small_vae().requires_grad_(False)
    with torch.no_grad():
        vae.conv1.weight[1] *= 0.01  # says little, and
        vae.conv1.bias[4 + 1] = 0.0  # is all noise
    videos = clips(6, 5)
    measure_latents(vae, (videos[i : i + 2] for i in (0, 2, 4)))
    spread = (
        (encode_moments(vae, videos)[1].exp() / vae.std.view(-1, 1, 1, 1) ** 2).movedim(1, 0).flatten(1).mean(dim=1)
    )
    latents = vae.encode(videos).movedim(1, 0).flatten(1)
    torch.testing.assert_close(latents.mean(dim=1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.var(dim=1, correction=0) + spread, torch.ones(4), atol=1e-4, rtol=0)
    assert latents[1].std() < 0.1 < latents[0].std()


def test_latents_that_cannot_be_measured_leave_the_vae_as_it_was() -> None:
    vae = small_vae()
    with pytest.raises(ValueError, match="no clips"):
        measure_latents(vae, [])
    with pytest.raises(ValueError, match="must be finite"):
        measure_latents(vae, [torch.full((1, 1, 16, 16, 3), float("nan"))])
    assert torch.equal(vae.mean, torch.zeros(4))
    assert torch.equal(vae.std, torch.ones(4))


def test_a_trained_vae_is_the_same_from_its_file(tmp_path: Path) -> None:
    vae = trained(small_vae(), 2)
    measure_latents(vae, [clips(4, 5)])
    state = vae.state_dict()
    layout = {name: (value.shape, value.dtype) for name, value in state.items()}
    write_tensors(tmp_path / "vae.safetensors", layout, state.values(), {})
    loaded = sf_core.load_vae(tmp_path / "vae.safetensors")
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    vae.requires_grad_(False)
    latents = vae.encode(clips(1, 5))
    assert torch.equal(loaded.encode(clips(1, 5)), latents)
    assert torch.equal(loaded.decode(latents), vae.decode(latents))
