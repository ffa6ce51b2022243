"""Loader of ComfyUI MODELs from any file that `sf_core` reads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import torch

from ...sf_core.files.checkpoint import REAL_HEAD_DIM, empty_model, open_source, rollout_settings, transformer_weights
from ...sf_core.files.published_models import model_by_file_name
from ...sf_core.model.architecture import WanArchitecture
from .model import Settings, with_settings

_ASSUMED = {"freq_dim": 256, "text_len": 512}  # by ComfyUI's detection


def build_model(path: Path, dtype: torch.dtype | None, **model_options: Any) -> Any:
    """Load a MODEL that carries the file's own rollout settings.

    Args:
        path: A Wan 2.1 text-to-video transformer.
        dtype: Of the weights. None: as in the file, or what ComfyUI prefers on this device.
        model_options: Passed on to ComfyUI's loader.

    Raises:
        ValueError: The file holds something else, which the message names.
    """
    tensors, metadata = open_source(path)
    weights = transformer_weights(tensors)
    arch = empty_model(weights, metadata, {}).arch
    state = {name: weight.read("cpu", weight.dtype) for name, weight in weights.items()}
    options = {**model_options, **({} if dtype is None else {"dtype": dtype})}
    if arch.dim == arch.num_heads * REAL_HEAD_DIM and all(getattr(arch, k) == v for k, v in _ASSUMED.items()):
        patcher = comfy.sd.load_diffusion_model_state_dict(state, model_options=options)
        if patcher is None:
            raise ValueError(
                f"{path.name} is a Wan 2.1 transformer that this ComfyUI does not recognise; update ComfyUI"
            )
    else:
        patcher = _unusual(arch, state, dtype)
    config, latent_size = rollout_settings(metadata)
    if config is None:
        member = model_by_file_name(path)
        config = member.config if member else None
    return with_settings(patcher, Settings(config, latent_size))


def _unusual(arch: WanArchitecture, state: dict[str, Any], dtype: torch.dtype | None) -> Any:
    """Build a MODEL whose sizes ComfyUI cannot detect: small models, heads of another width than published."""
    sizes = {**asdict(arch), "image_model": "wan2.1", "model_type": "t2v", "window_size": (-1, -1)}
    config = comfy.model_detection.model_config_from_unet_config(sizes, state)
    if config is None:
        raise ValueError("this ComfyUI does not know Wan 2.1; update it")
    device, offload = mm.get_torch_device(), mm.unet_offload_device()
    supported = config.supported_inference_dtypes
    stored = state["head.head.weight"].dtype
    parameters = sum(tensor.numel() for tensor in state.values())
    dtype = dtype or mm.unet_dtype(model_params=parameters, supported_dtypes=supported, weight_dtype=stored)
    config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, device, supported))
    model = config.get_model(state, "")
    model.to(offload)
    model.load_model_weights(state, "")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)
