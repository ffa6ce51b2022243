"""The embedded model: a small trained world, so that everything can be tried without a GPU or a download.

One coloured shape moves on a plain background, 64 x 64, by prompts such as "a red circle moving left quickly on a
black background". Transformer and VAE load as any of Wan 2.1 do.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..files.checkpoint import load_model
from ..model.wan import CausalWan
from ..text.word_table import TinyText
from ..vae import wan_vae

__all__ = ["TinyText", "load_teacher", "load_text", "load_transformer", "load_vae"]

FOLDER = Path(__file__).parent
PROMPT = "a red circle moving left quickly on a black background"
FPS = 16


def load_transformer(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> CausalWan:
    """The tiny causal Wan transformer; it names its latent size and rollout settings itself."""
    return load_model(FOLDER / "transformer.safetensors", device, dtype)


def load_teacher(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> CausalWan:
    """What the transformer was distilled from, bidirectional and many-step; in a few causal steps it makes a mess."""
    return load_model(FOLDER / "teacher.safetensors", device, dtype)


def load_text() -> TinyText:
    """Its text encoder: a table of words."""
    return TinyText(FOLDER / "text.json", FOLDER / "text.safetensors")


def load_vae(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> wan_vae.WanVAE:
    """Its VAE: Wan 2.1's, narrow."""
    return wan_vae.load_vae(FOLDER / "vae.safetensors", device, dtype)
