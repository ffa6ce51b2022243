"""Transformer checkpoints: what a file holds, and a model from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sf_core.config import RolloutConfig
from sf_core.wan import CausalWan
from sf_core.wan_forward import WanArchitecture

REAL_HEAD_DIM = 128  # of every published Wan; the number of heads is not in the weights
# settings of the reference's model class that belong to `RolloutConfig` here
_ROLLOUT_SETTINGS = {"local_attn_size", "sink_size", "max_attention_tokens"}

State = Mapping[str, Tensor]


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (mapped, read when used) and metadata of a file. Raises ValueError if it is not whole."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is cut short: {error}") from error


def detect_architecture(state: State, metadata: Mapping[str, str], overrides: Mapping[str, Any]) -> WanArchitecture:
    """The architecture from the shapes in ``state``; heads and text length from overrides or metadata.

    Raises ValueError if these are not the weights of a Wan 2.1 text-to-video transformer or contradict an override.
    """
    for name in ("patch_embedding.weight", "blocks.0.ffn.0.weight", "text_embedding.0.weight", "head.head.weight"):
        if name not in state:
            sample = ", ".join(sorted(state)[:3]) or "nothing"
            raise ValueError(f"this is not a Wan 2.1 transformer: it has no {name!r} (it has {sample} ...)")
    if any(".k_img." in name or name.startswith("img_emb.") for name in state):
        raise ValueError("this is Wan's image-to-video transformer; Self Forcing models are text-to-video ones")
    dim, in_dim, *patch = state["patch_embedding.weight"].shape
    found: dict[str, Any] = {
        "dim": dim,
        "in_dim": in_dim,
        "patch_size": tuple(patch),
        "ffn_dim": state["blocks.0.ffn.0.weight"].shape[0],
        "num_layers": 1 + max(int(m[1]) for name in state if (m := re.match(r"blocks\.(\d+)\.", name))),
        "text_dim": state["text_embedding.0.weight"].shape[1],
        "freq_dim": state["time_embedding.0.weight"].shape[1],
        "out_dim": state["head.head.weight"].shape[0] // (patch[0] * patch[1] * patch[2]),
        "qk_norm": "blocks.0.self_attn.norm_q.weight" in state,
        "cross_attn_norm": "blocks.0.norm3.weight" in state,
    }
    given = {name: value for name, value in overrides.items() if name not in _ROLLOUT_SETTINGS}
    known = {f.name for f in fields(WanArchitecture)}
    if unknown := sorted(set(given) - known):
        raise ValueError(
            f"unknown settings of the architecture: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    for name, value in given.items():
        value = tuple(value) if name == "patch_size" else value
        if name in found and value != found[name]:
            raise ValueError(f"{name} is said to be {value}, but the weights say {found[name]}")
    text_len = int(given.get("text_len", metadata.get("sf.text_len", 512)))
    return WanArchitecture(
        **found, num_heads=_heads(dim, given, metadata), text_len=text_len, eps=float(given.get("eps", 1e-6))
    )


def _heads(dim: int, given: Mapping[str, Any], metadata: Mapping[str, str]) -> int:
    named = given.get("num_heads", metadata.get("sf.num_heads"))
    if named is None:
        if dim % REAL_HEAD_DIM:
            raise ValueError(
                f"the number of heads is not in the weights, and a width of {dim} is no multiple of {REAL_HEAD_DIM}: "
                "give num_heads, or write sf.num_heads into the file's metadata"
            )
        return dim // REAL_HEAD_DIM
    heads = int(named)
    if heads < 1 or dim % heads or (dim // heads) % 2:
        raise ValueError(f"num_heads is {heads}, which does not cut a width of {dim} into heads of an even width")
    return heads


def load_model(
    source: str | Path | State, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, **overrides: Any
) -> CausalWan:
    """A causal Wan model from a safetensors file or a state dict, in Wan's original names.

    The architecture is read off the shapes. ``overrides`` may say what they cannot: ``num_heads`` (default: heads of
    128, or the file's ``sf.num_heads``) and ``text_len`` (default 512, or the file's ``sf.text_len``), and ``eps``.
    Weights go to ``device`` in ``dtype`` one by one. Raises ValueError naming what does not fit.
    """
    metadata: dict[str, str] = {}
    if isinstance(source, (str, Path)):
        state, metadata = read_safetensors(Path(source))
    else:
        state = dict(source)
    arch = detect_architecture(state, metadata, overrides)
    with torch.device("meta"):
        model = CausalWan(arch)
    _check_names(model, state)
    for name in list(state):
        state[name] = state[name].to(device, dtype, copy=True)
    model.load_state_dict(state, assign=True)
    model.eval().requires_grad_(False)
    model.metadata = metadata
    if "sf.rollout" in metadata:
        model.rollout_config = RolloutConfig.from_dict(json.loads(metadata["sf.rollout"]))
    if "sf.latent_size" in metadata:
        rows, columns = json.loads(metadata["sf.latent_size"])
        model.latent_size = (rows, columns)
    return model


def _check_names(model: CausalWan, state: State) -> None:
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        parts = [f"lacks {len(missing)} tensors ({', '.join(missing[:3])} ...)"] if missing else []
        parts += [f"has {len(extra)} that no such model has ({', '.join(extra[:3])} ...)"] if extra else []
        raise ValueError(f"this is not a whole Wan 2.1 text-to-video transformer: it {' and '.join(parts)}")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise ValueError(f"{name} has the shape {list(state[name].shape)}; expected {list(shape)}")
