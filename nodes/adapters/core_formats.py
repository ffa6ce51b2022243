"""Weights as ComfyUI's loader takes them: under its names, mapped from the file, quantised where it can keep them so.

Hides the differences between ComfyUI 0.3.75 and 0.33: which formats they keep, and how a file says that it has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.quant_ops
import comfy.utils
import torch
from torch import Tensor

from ...sf_core.files.quantised import FP8, METADATA, NVFP4, layers_of
from ...sf_core.files.safetensors_file import Value, mapped
from ...sf_core.files.shards import model_files
from ...sf_core.files.weights import Weight

_PREFIXES = ("", "model.diffusion_model.", "model.", "net.")  # that ComfyUI's loader removes
_ENDINGS = (".safetensors", ".sft")
_OLD_MARK = "scaled_fp8"
# a mark beside each layer is read by newer versions; older ones read the metadata only
_READS_MARKS = hasattr(comfy.utils, "detect_layer_quantization")


def _known() -> Mapping[str, Any]:
    """Return what this ComfyUI knows of the formats that it keeps, by name."""
    return dict(getattr(comfy.quant_ops, "QUANT_ALGOS", {}))


def only_core_reads(path: Path, tensors: Mapping[str, Value], metadata: Mapping[str, str]) -> bool:
    """Whether a file has layers in a format of this ComfyUI that `sf_core` does not read, marked as ComfyUI has it."""
    kinds = {str(mark.get("format")) for mark in layers_of(tensors).values()}
    marked = METADATA in metadata or _READS_MARKS
    return path.suffix.lower() in _ENDINGS and marked and bool(kinds) and kinds <= _known().keys()


def is_cores(
    path: Path, tensors: Mapping[str, Value], metadata: Mapping[str, str], weights: Mapping[str, Weight]
) -> bool:
    """Whether ComfyUI's own loader reads a file as it is: one in safetensors, under its names, in formats it keeps."""
    if path.suffix.lower() not in _ENDINGS or model_files(path) is not None:
        return False
    prefix = next((p for p in _PREFIXES if f"{p}patch_embedding.weight" in tensors), None)
    if prefix is None or len(tensors[f"{prefix}patch_embedding.weight"].shape) != 5:
        return False
    if not all(f"{prefix}{name}" in tensors for name in weights) or any(weight.changes for weight in weights.values()):
        return False
    scaled = [weight for weight in weights.values() if weight.scaling is not None]
    if not scaled:
        return True
    if f"{prefix}{_OLD_MARK}" in tensors and METADATA not in metadata:
        return all(weight.scaling.is_one_number and weight.stored.dtype in FP8 for weight in scaled if weight.scaling)
    marks = layers_of(tensors)
    if METADATA not in metadata and not _READS_MARKS:
        return False
    return len(marks) >= len(scaled) and all(_core_layer(weight) is not None for weight in scaled)


def core_state(weights: Mapping[str, Weight], wide: torch.dtype | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a state dict, and the metadata that says which of its layers are quantised.

    Args:
        weights: The weights.
        wide: None keeps quantised weights, where this ComfyUI can; else they are read in this dtype.
    """
    values: dict[str, Value] = {}
    layers = {}
    for name, weight in weights.items():
        kept = _core_layer(weight) if wide is None else None
        if kept is not None:
            layer = name.removesuffix(".weight")
            values |= {f"{layer}.{kind}": value for kind, value in kept[0].items()}
            layers[layer] = kept[1]
        elif weight.scaling is not None or weight.changes:
            values[name] = weight.read("cpu", wide or weight.dtype)
        else:
            values[name] = weight.stored
    return mapped(values), {METADATA: json.dumps({"format_version": "1.0", "layers": layers})} if layers else {}


def widened(weights: Mapping[str, Weight]) -> int:
    """Return how many quantised weights this ComfyUI cannot keep as they are."""
    return sum(weight.scaling is not None and _core_layer(weight) is None for weight in weights.values())


def _core_layer(weight: Weight) -> tuple[dict[str, Value], dict[str, Any]] | None:
    """Return a quantised layer's tensors in ComfyUI's names, and its mark; None if ComfyUI cannot keep it."""
    scaling = weight.scaling
    known = _known().get(scaling.kind or "") if scaling is not None else None
    if scaling is None or known is None or weight.changes or len(weight.shape) != 2:
        return None
    mark: dict[str, Any] = {"format": scaling.kind}
    parts: dict[str, Value] = {"weight": weight.stored, "weight_scale": scaling.factor}
    if weight.stored.dtype in FP8 and not scaling.tiled:
        if not scaling.is_one_number:
            return None  # the kernels for fp8 know one factor
        parts["weight_scale"] = scaling.factor.reshape(())
        mark["full_precision_matrix_mult"] = True  # nothing says that activations may be rounded too
    if scaling.kind == NVFP4 and scaling.whole is not None:
        parts["weight_scale_2"] = scaling.whole
    if scaling.of_inputs is not None:
        if "pre_quant_scale" not in known["parameters"]:
            return None
        parts["pre_quant_scale"] = scaling.of_inputs
    return parts, mark
