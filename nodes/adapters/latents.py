"""ComfyUI's latent format of models whose VAE normalises latents in its own way."""

from __future__ import annotations

import json
from collections.abc import Sequence

import comfy.latent_formats
import torch

from ...sf_core.files.checkpoint import LATENTS


class OwnLatents(comfy.latent_formats.Wan21):
    """Wan 2.1's latent format with another mean and deviation. Core's previews of Wan do not fit it.

    Args:
        mean: By channel.
        std: By channel.
    """

    latent_rgb_factors = latent_rgb_factors_bias = None

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.latents_mean, self.latents_std = (torch.tensor(list(x)).view(1, -1, 1, 1, 1) for x in (mean, std))
        self.taesd_decoder_name = None

    def metadata(self) -> dict[str, str]:
        """Return the metadata of a file from which `build_model` makes this format."""
        mean, std = (x.flatten().tolist() for x in (self.latents_mean, self.latents_std))
        return {LATENTS: json.dumps({"mean": mean, "std": std})}
