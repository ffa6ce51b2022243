"""The tiny model of a recorded case as a MODEL of ComfyUI, computed as the user's own is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from ...sf_core.verification.cases import Case
from . import host
from .model import HostedWan
from .model_loader import build_model

_OPTIONS = ("optimized_attention_override",)  # of the transformer, which change its arithmetic


def tiny_case(case: Case, like: Any, dtype: torch.dtype) -> HostedWan:
    """Load the tiny model of a case.

    Args:
        case: The case.
        like: The user's MODEL, whose choice of attention is used.
        dtype: Of the computation.
    """
    with tempfile.TemporaryDirectory(dir=host.temp_folder()) as folder:
        path = Path(folder) / "case.safetensors"
        case.write_model(path)
        patcher = build_model(path, dtype).clone()
    chosen = like.model_options["transformer_options"]
    options = patcher.model_options["transformer_options"]
    patcher.model_options["transformer_options"] = {
        **options,
        **{name: chosen[name] for name in _OPTIONS if name in chosen},
    }
    return HostedWan(patcher)
