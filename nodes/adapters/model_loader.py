"""Loader of ComfyUI MODELs from any file that `sf_core` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import torch

from ...sf_core.files.checkpoint import (
    REAL_HEAD_DIM,
    empty_model,
    latent_normalisation,
    open_source,
    rollout_settings,
)
from ...sf_core.files.quantised import FP8
from ...sf_core.files.recognition import Recognition, recognise
from ...sf_core.files.safetensors_file import Value
from ...sf_core.files.weights import Weight, memory_weights, transformer_weights
from ...sf_core.model.architecture import WanArchitecture
from . import core_formats, host, second_set
from .fingerprint import remember_source
from .latents import OwnLatents
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
    if config is None:
        config = recognised(path).config
    return with_settings(patcher, Settings(config, latent_size))


def recognised(path: Path) -> Recognition:
    """Recognise the model in a file without reading it.

    Raises:
        ValueError: The file holds something else.
    """
    tensors, metadata = open_source(path)
    return recognise(path, tensors, metadata, rollout_settings(metadata)[0])


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
    """Load a MODEL. Raises ValueError if it is no Wan 2.1 transformer.

    A file under ComfyUI's names goes to its own loader. Else the weights go there under these names: mapped, so that
    the file is in memory once, and quantised where ComfyUI can keep them so.
    """
    tensors, metadata = open_source(path)
    options = {**model_options, **({} if dtype is None else {"dtype": dtype})}
    others = {"disable_dynamic": True} if disable_dynamic else {}  # unknown to older versions
    keeps = dtype in (None, *FP8)  # a dtype that weights may be stored in beside quantised ones
    if keeps and not _is_read_here(tensors) and core_formats.only_core_reads(path, tensors, metadata):
        return comfy.sd.load_diffusion_model(str(path), dict(model_options), **others)
    memory = memory_weights(tensors)

    def load(weights: Mapping[str, Weight]) -> Any:
        arch = empty_model(weights, metadata, {}).arch
        quantised = any(weight.scaling is not None for weight in weights.values())
        if arch.dim != arch.num_heads * REAL_HEAD_DIM or any(getattr(arch, k) != v for k, v in _ASSUMED.items()):
            wide = dtype if dtype in _FLOATS else torch.bfloat16
            return _unusual(arch, core_formats.core_state(weights, wide if quantised else None)[0], dtype)
        chosen = dict(model_options) if quantised and keeps else options
        if (keeps or not quantised) and memory is None and core_formats.is_cores(path, tensors, metadata, weights):
            return comfy.sd.load_diffusion_model(str(path), chosen, **others)
        if keeps and (count := core_formats.widened(weights)):
            host.log.warning("%s: this ComfyUI cannot keep %s quantised weights; they become bf16", path.name, count)
        state, facts = core_formats.core_state(weights, None if keeps else dtype)
        patcher = comfy.sd.load_diffusion_model_state_dict(state, model_options=chosen, metadata=facts, **others)
        if patcher is None:
            raise ValueError(
                f"{path.name} is a Wan 2.1 transformer that this ComfyUI does not recognise; update ComfyUI"
            )
        return patcher

    patcher = load(transformer_weights(tensors))
    return patcher if memory is None else second_set.attach(patcher, load(memory))


def _is_read_here(tensors: Mapping[str, Value]) -> bool:
    try:
        transformer_weights(tensors)
    except ValueError:
        return False
    return True


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
