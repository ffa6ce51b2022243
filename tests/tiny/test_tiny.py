"""The embedded model's small parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sf_core import tiny
from sf_core.vae.wan_vae import WanVAE


def test_words_aliases_and_case_are_understood() -> None:
    text = tiny.load_text()
    assert torch.equal(text.encode("A Red ball, moving fast!"), text.encode("a red circle moving quickly"))
    assert text.encode("a red circle").shape == (1, 3, 64)


def test_an_unknown_word_lists_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"does not know 'dragon'. Its words: a, moving, on.*gray; also an, ball"):
        tiny.load_text().encode("a red dragon")


def test_too_long_a_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="the prompt has 13 words; the tiny model reads at most 12"):
        tiny.load_text().encode("a red circle on a black background a red circle on a white")


def test_the_vae_is_one_of_wan_2_1() -> None:
    vae = tiny.load_vae()
    assert isinstance(vae, WanVAE)
    assert (vae.channels, vae.spatial_factor, vae.temporal_factor) == (16, 8, 4)


def test_frames_come_back_from_latents() -> None:
    vae = tiny.load_vae()
    frames = torch.zeros(1, 5, 64, 64, 3)
    frames[:, :, 20:44, 20:44] = torch.tensor([1.0, 0.0, 0.0])
    latents = vae.encode(frames)
    assert latents.shape == (1, 16, 2, 8, 8)
    decoded = vae.decode(latents)
    assert decoded.shape == frames.shape
    assert float((decoded - frames).abs().mean()) < 0.08
    torch.testing.assert_close(decoded[:, :1], vae.decode(latents[:, :, :1]), rtol=0, atol=1e-5)


def test_the_weights_for_one_frame_at_a_time_are_the_same_model_with_shorter_chunks() -> None:
    model, usual = tiny.load_transformer(framewise=True), tiny.load_transformer()
    assert model.rollout_config is not None
    assert usual.rollout_config == replace(model.rollout_config, chunk_frames=3)
    assert model.rollout_config.chunk_frames == 1
    assert model.arch == usual.arch
    assert sum(path.stat().st_size for path in tiny.FOLDER.iterdir() if path.is_file()) <= 16e6


def test_the_transformer_loads_as_any_checkpoint_does() -> None:
    model = tiny.load_transformer()
    assert (model.arch.num_heads, model.arch.text_len, model.latent_size) == (4, 12, (8, 8))
    assert model.rollout_config is not None
    assert model.rollout_config.window_frames == 6
