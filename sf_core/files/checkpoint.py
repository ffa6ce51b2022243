"""Transformer checkpoints of the whole model family: `load_model`, and the steps that it is made of."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ..config import RolloutConfig
from ..model.architecture import WanArchitecture
from ..model.wan import CausalWan
from .quantised import with_marks
from .safetensors_file import Value
from .shards import open_model
from .torch_file import nested_tensors
from .weights import Weight, memory_weights, transformer_weights

REAL_HEAD_DIM = 128  # of every published Wan; the number of heads is not in the weights
# settings of the reference's model class that belong to `RolloutConfig` here
_ROLLOUT_SETTINGS = {"local_attn_size", "sink_size", "max_attention_tokens"}
# weights whose sizes determine the architecture, with their numbers of dimensions
_LANDMARKS = {
    "patch_embedding.weight": 5,
    "blocks.0.ffn.0.weight": 2,
    "text_embedding.0.weight": 2,
    "time_embedding.0.weight": 2,
    "head.head.weight": 2,
}

LATENTS = "sf.latents"  # metadata: mean and std of the latents, of a model whose VAE is not Wan's

Source = str | Path | Mapping[str, Any]  # a file, or a state dict, grouped perhaps as in a trainer's checkpoint


def load_model(
    source: Source,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    lora: Source | None = None,
    lora_strength: float = 1.0,
    **overrides: Any,
) -> CausalWan:
    """Load a causal Wan model.

    Weights go to ``device`` in ``dtype`` one by one: memory peaks at the model plus one weight.

    Args:
        source: A ``.safetensors``, ``.pt`` or ``.pth`` file, a folder with several (see `open_model`), or a state
            dict. Names may be the original ones or diffusers', under the prefixes and wrappers of trainers and of
            ComfyUI; in a trainer's checkpoint, ``generator_ema`` is preferred to ``generator``. Weights may be float32,
            bf16, fp16, or quantised in a format that `quantised` reads. Of a file with two sets of weights (SGF+), the
            second is the model's `memory`.
        device: Device of the model.
        dtype: Of its weights.
        lora: A LoRA in PEFT's, kohya's or ComfyUI's names, merged into the weights. Its rollout settings, if it has
            any, replace the base's.
        lora_strength: Factor of the LoRA.
        **overrides: Parts of the architecture that the shapes do not determine: ``num_heads`` (default: the file's
            ``sf.num_heads``, or heads of 128), ``text_len`` (default: the file's ``sf.text_len``, or 512) and ``eps``.

    Raises:
        ValueError: The source does not fit, and the message says what; or it is a pickle that could run code.
    """
    tensors, metadata = open_source(source)
    changes = None
    if lora is not None:
        metadata |= lora_settings(lora)
        changes = open_source(lora)[0]
    config, latent_size = rollout_settings(metadata)
    sets = [transformer_weights(tensors, changes, lora_strength)]
    if memory := memory_weights(tensors, changes, lora_strength):
        sets.append(memory)
    models = []
    for weights in sets:
        one = empty_model(weights, metadata, overrides)
        one.load_state_dict({name: weight.read(device, dtype) for name, weight in weights.items()}, assign=True)
        models.append(one.eval().requires_grad_(False))
    model = models[0].with_memory(models[1]) if memory else models[0]
    model.metadata = metadata
    model.rollout_config, model.latent_size = config, latent_size
    return model


# Contents of a file -------------------------------------------------------------------------------------------------


def open_source(source: Source) -> tuple[dict[str, Value], dict[str, str]]:
    """Return tensors by name, nested names joined by dots, and metadata; files are not read yet."""
    if isinstance(source, (str, Path)):
        stored, metadata = open_model(Path(source))
        return with_marks(stored, metadata), metadata
    return dict(nested_tensors(source)), {}


def lora_settings(lora: Source) -> dict[str, str]:
    """Return the rollout metadata of a LoRA; one that was trained here has its own, other than its base's."""
    metadata = open_source(lora)[1]
    return {name: metadata[name] for name in ("sf.rollout", "sf.latent_size", "sf.trained") if name in metadata}


def rollout_settings(metadata: Mapping[str, str]) -> tuple[RolloutConfig | None, tuple[int, int] | None]:
    """Read rollout settings and latent size from a file's metadata, None where it has none.

    Raises:
        ValueError: The metadata is malformed.
    """
    config, size = None, None
    try:
        if "sf.rollout" in metadata:
            config = RolloutConfig.from_dict(json.loads(metadata["sf.rollout"]))
        if "sf.latent_size" in metadata:
            rows, columns = json.loads(metadata["sf.latent_size"])
            size = (int(rows), int(columns))
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"the file's own settings (sf.rollout, sf.latent_size) make no sense: {error}") from error
    return config, size


def latent_normalisation(metadata: Mapping[str, str]) -> tuple[list[float], list[float]] | None:
    """Read mean and deviation of the latents by channel from a file's metadata; None: Wan's own.

    Raises:
        ValueError: The metadata is malformed.
    """
    if LATENTS not in metadata:
        return None
    try:
        facts = json.loads(metadata[LATENTS])
        mean, std = ([float(value) for value in facts[name]] for name in ("mean", "std"))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise ValueError(f"the file's own normalisation of latents ({LATENTS}) makes no sense: {error}") from error
    if len(mean) != len(std) or not all(math.isfinite(value) for value in mean) or not all(0 < v < 1e6 for v in std):
        raise ValueError(f"the file's own normalisation of latents ({LATENTS}) makes no sense: {reprlib.repr(facts)}")
    return mean, std


# The architecture ---------------------------------------------------------------------------------------------------


def detect_architecture(
    state: Mapping[str, Value | Weight], metadata: Mapping[str, str], overrides: Mapping[str, Any]
) -> WanArchitecture:
    """Detect the architecture from the shapes in ``state``, heads and text length from overrides or metadata.

    Raises:
        ValueError: These are not the weights of a Wan 2.1 text-to-video transformer, or they contradict an override.
    """
    for name, dimensions in _LANDMARKS.items():
        if name not in state:
            sample = ", ".join(sorted(state)[:3]) or "nothing"
            raise ValueError(f"this is not a Wan 2.1 transformer: it has no {name!r} (it has {sample} ...)")
        if len(state[name].shape) != dimensions or 0 in state[name].shape:
            raise ValueError(f"this is not a Wan 2.1 transformer: {name} has the shape {list(state[name].shape)}")
    if any(".k_img." in name or name.startswith("img_emb.") for name in state):
        raise ValueError("this is Wan's image-to-video transformer; Self Forcing models are text-to-video ones")
    dim, in_dim, *patch = state["patch_embedding.weight"].shape
    layers = {int(match[1]) for name in state if (match := re.match(r"blocks\.(\d{1,6})\.", name))}
    if max(layers) >= len(layers):
        absent = next(layer for layer in range(max(layers)) if layer not in layers)
        raise ValueError(f"this is not a whole Wan 2.1 transformer: it has blocks up to {max(layers)}, but no {absent}")
    detected: dict[str, Any] = {
        "dim": dim,
        "in_dim": in_dim,
        "patch_size": tuple(patch),
        "ffn_dim": state["blocks.0.ffn.0.weight"].shape[0],
        "num_layers": len(layers),
        "text_dim": state["text_embedding.0.weight"].shape[1],
        "freq_dim": state["time_embedding.0.weight"].shape[1],
        "out_dim": state["head.head.weight"].shape[0] // math.prod(patch),
        "qk_norm": "blocks.0.self_attn.norm_q.weight" in state,
        "cross_attn_norm": "blocks.0.norm3.weight" in state,
    }
    if in_dim != detected["out_dim"]:
        raise ValueError(
            f"this model reads {in_dim} channels and gives {detected['out_dim']}: one that is led by images or by "
            "control signals. Self Forcing models are text-to-video ones"
        )
    chosen = {name: value for name, value in overrides.items() if name not in _ROLLOUT_SETTINGS}
    settings = {f.name for f in fields(WanArchitecture)}
    if unknown := sorted(set(chosen) - settings):
        raise ValueError(
            f"unknown settings of the architecture: {', '.join(unknown)}; known are {', '.join(sorted(settings))}"
        )
    for name, value in chosen.items():
        value = tuple(value) if name == "patch_size" else value
        if name in detected and value != detected[name]:
            raise ValueError(f"{name} is said to be {value}, but the weights say {detected[name]}")
    text_len = _positive("text_len", chosen.get("text_len", metadata.get("sf.text_len", 512)))
    return WanArchitecture(
        **detected, num_heads=_heads(dim, chosen, metadata), text_len=text_len, eps=float(chosen.get("eps", 1e-6))
    )


def _heads(dim: int, chosen: Mapping[str, Any], metadata: Mapping[str, str]) -> int:
    stated = chosen.get("num_heads", metadata.get("sf.num_heads"))
    if stated is None:
        if dim % REAL_HEAD_DIM:
            raise ValueError(
                f"the number of heads is not in the weights, and a width of {dim} is no multiple of {REAL_HEAD_DIM}: "
                "give num_heads, or write sf.num_heads into the file's metadata"
            )
        return dim // REAL_HEAD_DIM
    heads = _positive("num_heads", stated)
    if dim % heads or (dim // heads) % 2:
        raise ValueError(f"num_heads is {heads}, which does not cut a width of {dim} into heads of an even width")
    return heads


def _positive(name: str, value: Any) -> int:
    number = int(value) if str(value).isascii() and str(value).isdigit() else 0
    if number < 1:
        raise ValueError(f"{name} is {value}; expected a whole number from 1 on")
    return number


def empty_model(
    state: Mapping[str, Value | Weight], metadata: Mapping[str, str], overrides: Mapping[str, Any]
) -> CausalWan:
    """Build the model of ``state`` with its weights on the meta device.

    Raises:
        ValueError: Names or shapes do not fit; the message says which.
    """
    arch = detect_architecture(state, metadata, overrides)
    try:
        with torch.device("meta"):
            model = CausalWan(arch)
    except RuntimeError as error:  # sizes whose products overflow
        raise ValueError(f"no transformer has such sizes: {arch}") from error
    _check_names(model, state)
    return model


def _check_names(model: CausalWan, state: Mapping[str, Value | Weight]) -> None:
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        parts = [f"lacks {len(missing)} tensors ({', '.join(missing[:3])} ...)"] if missing else []
        parts += [f"has {len(extra)} that no such model has ({', '.join(extra[:3])} ...)"] if extra else []
        raise ValueError(f"this is not a whole Wan 2.1 text-to-video transformer: it {' and '.join(parts)}")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise ValueError(f"{name} has the shape {list(state[name].shape)}; expected {list(shape)}")
