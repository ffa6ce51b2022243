"""The embedded model: trained on a tiny world, so that everything can be tried without a GPU or a download.

One coloured shape moves on a plain background, 64 x 64 pixels, as a prompt says: "a red circle moving left quickly on a
black background". Transformer and VAE load as any of Wan 2.1 do.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..files.checkpoint import load_model
from ..model.wan import CausalWan
from ..text.word_table import TinyText
from ..vae import loading, wan_vae

__all__ = ["TinyText", "load_teacher", "load_text", "load_transformer", "load_vae"]

FOLDER = Path(__file__).parent
PROMPT = "a red circle moving left quickly on a black background"
FPS = 16


def load_transformer(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, framewise: bool = False
) -> CausalWan:
    """Load the tiny causal Wan transformer; its file has its latent size and rollout settings.

    Args:
        device: Device of the weights.
        dtype: Their dtype.
        framewise: Take the weights that make one latent frame at a time, in place of three: they follow a new prompt
            sooner.
    """
    return load_model(FOLDER / ("framewise.safetensors" if framewise else "transformer.safetensors"), device, dtype)


def load_teacher(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> CausalWan:
    """Load the bidirectional, many-step teacher of the transformer; a few causal steps with it give no usable video."""
    return load_model(FOLDER / "teacher.safetensors", device, dtype)


def load_text() -> TinyText:
    """Load the text encoder, a table of words."""
    return TinyText(FOLDER / "text.json", FOLDER / "text.safetensors")


def load_vae(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> wan_vae.WanVAE:
    """Load the VAE, a narrow one of Wan 2.1's architecture."""
    return loading.load_vae(FOLDER / "vae.safetensors", device, dtype)
