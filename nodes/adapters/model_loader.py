"""Loader of ComfyUI MODELs from any file that `sf_core` reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor

from ...sf_core.files.checkpoint import (
    FP8,
    REAL_HEAD_DIM,
    Weight,
    empty_model,
    latent_normalisation,
    open_source,
    rollout_settings,
    transformer_weights,
)
from ...sf_core.files.published_models import model_by_file_name
from ...sf_core.files.safetensors_file import Value
from ...sf_core.model.architecture import WanArchitecture
from .fingerprint import remember_source
from .latents import OwnLatents
from .model import check_wan
from .model_settings import Settings, with_settings

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
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
    metadata = open_source(path)[1]
    patcher = _read(path, dtype, model_options)
    # core's nodes for several GPUs load a model again with it
    patcher.cached_patcher_init = (_read, (path, dtype, model_options))
    remember_source(patcher, path)
    config, latent_size = rollout_settings(metadata)
    check_wan(with_settings(patcher, Settings(config, latent_size)))
    if config is None:
        known = model_by_file_name(path)
        config = known.config if known else None
    return with_settings(patcher, Settings(config, latent_size))


def _read(
    path: Path, dtype: torch.dtype | None, model_options: Mapping[str, Any], disable_dynamic: bool = False
) -> Any:
    """Load a MODEL without settings, in the file's own latent format if it names one."""
    patcher = _read_weights(path, dtype, model_options, disable_dynamic)
    normalisation = latent_normalisation(open_source(path)[1])
    if normalisation is not None:
        patcher.model.latent_format = OwnLatents(*normalisation)
    return patcher


def _read_weights(
    path: Path, dtype: torch.dtype | None, model_options: Mapping[str, Any], disable_dynamic: bool
) -> Any:
    """Load a MODEL. Raises ValueError if it is no Wan 2.1 transformer."""
    tensors, metadata = open_source(path)
    options = {**model_options, **({} if dtype is None else {"dtype": dtype})}
    others = {"disable_dynamic": True} if disable_dynamic else {}  # unknown to older versions
    if dtype in (None, *FP8) and _is_quantised_as_core_reads_it(tensors, metadata):
        scaled = any(name.endswith("scaled_fp8") for name in tensors)
        return comfy.sd.load_diffusion_model(str(path), dict(model_options) if scaled else options, **others)
    weights = transformer_weights(tensors)
    arch = empty_model(weights, metadata, {}).arch
    if arch.dim != arch.num_heads * REAL_HEAD_DIM or any(getattr(arch, k) != v for k, v in _ASSUMED.items()):
        return _unusual(arch, _state(weights, None), dtype)
    narrow = _dtype_to_read(weights, dtype)
    if narrow is not None:
        options["dtype"] = narrow
    patcher = comfy.sd.load_diffusion_model_state_dict(_state(weights, narrow), model_options=options, **others)
    if patcher is None:
        raise ValueError(f"{path.name} is a Wan 2.1 transformer that this ComfyUI does not recognise; update ComfyUI")
    return patcher


def _is_quantised_as_core_reads_it(tensors: Mapping[str, Value], metadata: Mapping[str, str]) -> bool:
    """Whether ComfyUI's own loader keeps the weights as small as they are stored; it takes them under its own names."""
    quantised = any(value.dtype not in _FLOATS for value in tensors.values() if len(value.shape) > 1)
    named = any(f"{prefix}blocks.0.ffn.0.weight" in tensors for prefix in ("", "model.diffusion_model."))
    has_scales = any(name.endswith(("scale_weight", "weight_scale")) for name in tensors)
    marked = "_quantization_metadata" in metadata or any(
        name.endswith(("scaled_fp8", "comfy_quant")) for name in tensors
    )
    return quantised and named and (marked or not has_scales)


def _dtype_to_read(weights: Mapping[str, Weight], dtype: torch.dtype | None) -> torch.dtype | None:
    """Return the 16-bit dtype in which ComfyUI will use wider weights; None: they are read as they are stored."""
    if weights["head.head.weight"].dtype not in (torch.float32, torch.float64):
        return None
    count = sum(math.prod(weight.shape) for weight in weights.values())
    kinds = [torch.float16, torch.bfloat16, torch.float32]  # as ComfyUI lists them for Wan
    used = dtype or mm.unet_dtype(model_params=count, supported_dtypes=kinds, weight_dtype=torch.float32)
    return used if used in (torch.float16, torch.bfloat16) else None


def _state(weights: Mapping[str, Weight], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Read the weights in ``dtype``, but the patch embedding, which ComfyUI keeps in float32, as it is stored."""
    return {
        name: weight.read("cpu", weight.dtype if dtype is None or name.startswith("patch_embedding") else dtype)
        for name, weight in weights.items()
    }


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
