"""The embedded model as ComfyUI's MODEL, CLIP and VAE."""

from __future__ import annotations

from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy.ldm.wan.vae import WanVAE
from torch import Tensor, nn

from ...sf_core import tiny
from ...sf_core.tiny import TinyText
from .fingerprint import source_of
from .latents import OwnLatents
from .model_loader import build_model

WEIGHTS = {
    "self forcing": "transformer.safetensors",
    "teacher": "teacher.safetensors",
    "frame by frame": "framewise.safetensors",
}


def tiny_model(weights: str, disable_dynamic: bool = False) -> Any:
    """Load the MODEL whose weights are called ``weights`` in `WEIGHTS`; it is never a dynamic one."""
    patcher = build_model(tiny.FOLDER / WEIGHTS[weights], None)
    vae = tiny.load_vae()
    patcher.model.latent_format = OwnLatents(vae.mean.tolist(), vae.std.tolist())
    patcher.cached_patcher_init = (tiny_model, (weights,))
    return patcher


def is_teacher(patcher: Any) -> bool:
    """Whether a MODEL is the demo's teacher as it is, without a LoRA."""
    return source_of(patcher) == tiny.FOLDER / WEIGHTS["teacher"] and not patcher.patches


class _TextModel(nn.Module):
    """The word table, with the methods that ComfyUI calls on a text model."""

    def __init__(self, text: TinyText) -> None:
        super().__init__()
        self._text = text
        self.dtypes = {torch.float32}

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[Tensor, None]:
        return self._text.encode(tokens["tiny"]), None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Ignore the options: there are none."""

    def reset_clip_options(self) -> None:
        """Ignore the options: there are none."""


class _Tokenizer:
    """A tokenizer that passes the text on to the text model."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Any]:
        return {"tiny": text}


def tiny_clip() -> Any:
    """Make the CLIP."""
    clip = comfy.sd.CLIP(no_init=True)
    clip.cond_stage_model = _TextModel(tiny.load_text())
    clip.tokenizer = _Tokenizer()
    clip.patcher = comfy.model_patcher.ModelPatcher(clip.cond_stage_model, torch.device("cpu"), torch.device("cpu"))
    clip.patcher.is_clip = True
    clip.layer_idx, clip.use_clip_schedule, clip.apply_hooks_to_conds = None, False, None
    clip.tokenizer_options = {}
    return clip


def tiny_vae() -> Any:
    """Make the VAE: ComfyUI's Wan 2.1 VAE, in a depth that ComfyUI does not detect.

    The network also carries the normalisation of its latents, for `open_vae`.
    """
    state = comfy.utils.load_torch_file(str(tiny.FOLDER / "vae.safetensors"), safe_load=True)
    normalisation = {name: state.pop(name) for name in ("mean", "std")}
    sizes = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
    vae = comfy.sd.VAE(sd=WanVAE(**sizes).state_dict(), dtype=torch.float32)
    net = WanVAE(**sizes, num_res_blocks=1).eval()
    net.load_state_dict(state)
    for name, values in normalisation.items():
        net.register_buffer(name, values)
    vae.first_stage_model, vae.size = net, None
    vae.patcher = comfy.model_patcher.ModelPatcher(net, vae.device, mm.vae_offload_device())
    return vae
