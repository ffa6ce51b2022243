"""The embedded model as ComfyUI's own kinds of object: MODEL, CLIP and VAE, which core's nodes take."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor, nn

from ..sf_core import tiny
from ..sf_core.tiny import FrameAutoencoder, TinyText
from .build_model import build_model


class TinyLatents(comfy.latent_formats.LatentFormat):
    """The tiny VAE's latents as they are: what travels on a LATENT wire is what the transformer sees."""

    latent_channels = FrameAutoencoder.channels
    latent_dimensions = 3
    spacial_downscale_ratio = FrameAutoencoder.spatial_factor
    temporal_downscale_ratio = FrameAutoencoder.temporal_factor


def tiny_model() -> Any:
    patcher = build_model(tiny.FOLDER / "transformer.safetensors", None)
    patcher.model.latent_format = TinyLatents()
    return patcher


class _TextModel(nn.Module):
    """The table of words, with the methods that ComfyUI calls on a text model."""

    def __init__(self, text: TinyText) -> None:
        super().__init__()
        self._text = text
        self.dtypes = {torch.float32}

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[Tensor, None]:
        return self._text.encode(tokens["tiny"]), None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """There are none."""

    def reset_clip_options(self) -> None:
        """There are none."""


class _Tokenizer:
    """Leaves the words to the text model."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Any]:
        return {"tiny": text}


def tiny_clip() -> Any:
    clip = comfy.sd.CLIP(no_init=True)
    clip.cond_stage_model = _TextModel(tiny.load_text())
    clip.tokenizer = _Tokenizer()
    clip.patcher = comfy.model_patcher.ModelPatcher(clip.cond_stage_model, torch.device("cpu"), torch.device("cpu"))
    clip.patcher.is_clip = True
    clip.layer_idx, clip.use_clip_schedule, clip.apply_hooks_to_conds = None, False, None
    clip.tokenizer_options = {}
    return clip


class TinyVAE(comfy.sd.VAE):
    """The interim decoder of the tiny model, each frame by itself."""

    def __init__(self) -> None:
        factor = FrameAutoencoder.spatial_factor
        self.device, self.output_device = mm.vae_device(), mm.intermediate_device()
        self.vae_dtype = torch.float32
        self.first_stage_model = tiny.load_vae(self.device)
        self.patcher = comfy.model_patcher.ModelPatcher(self.first_stage_model, self.device, mm.vae_offload_device())
        self.latent_channels, self.latent_dim, self.output_channels = FrameAutoencoder.channels, 3, 3
        self.upscale_ratio = self.downscale_ratio = factor
        self.upscale_index_formula = self.downscale_index_formula = None
        self.size = None

    def decode(self, samples_in: Tensor, vae_options: dict[str, Any] | None = None) -> Tensor:
        """Latents [B, C, F, h, w] to frames [B, F, H, W, 3] in 0..1."""
        mm.load_models_gpu([self.patcher])
        return self.first_stage_model.decode(samples_in.to(self.device)).to(self.output_device)

    def decode_tiled(self, samples: Tensor, **tiles: Any) -> Tensor:
        return self.decode(samples)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Frames [T, H, W, 3], or [B, T, H, W, 3], to latents; what is over a multiple of 16 is cut off."""
        mm.load_models_gpu([self.patcher])
        frames = pixel_samples if pixel_samples.ndim == 5 else pixel_samples[None]
        factor = FrameAutoencoder.spatial_factor
        height, width = (size // factor * factor for size in frames.shape[2:4])
        top, left = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
        frames = frames[:, :, top : top + height, left : left + width, :3]
        return self.first_stage_model.encode(frames.to(self.device)).to(self.output_device)

    def encode_tiled(self, pixel_samples: Tensor, **tiles: Any) -> Tensor:
        return self.encode(pixel_samples)

    def get_sd(self) -> dict[str, Tensor]:
        return self.first_stage_model.state_dict()

    def throw_exception_if_invalid(self) -> None:
        """It is built from the pack's own file."""

    def spacial_compression_decode(self) -> int:
        return FrameAutoencoder.spatial_factor

    spacial_compression_encode = spacial_compression_decode

    def temporal_compression_decode(self) -> int:
        return FrameAutoencoder.temporal_factor
