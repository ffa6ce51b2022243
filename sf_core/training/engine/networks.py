"""Transformers in training: new ones, frozen copies for the EMA, and their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...config import RolloutConfig
from ...files.safetensors_file import write_tensors
from ...model.architecture import WanArchitecture
from ...model.wan import CausalWan
from ...noise import noise_key
from .shards import full_tensor


def new_transformer(arch: WanArchitecture, seed: int) -> CausalWan:
    """Build a transformer with Wan's initialisation: Xavier for matrices, a head that starts at zero."""
    model = CausalWan(arch)
    generator = torch.Generator().manual_seed(noise_key(seed, 0, 0, 0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("modulation"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * arch.dim**-0.5)
            elif name.endswith("bias") or name == "head.head.weight":
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1)
            elif name.startswith(("text_embedding", "time_embedding")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
            else:
                flat = parameter.view(parameter.shape[0], -1)
                nn.init.xavier_uniform_(flat, generator=generator)
    return model.eval()


def frozen_copy(model: CausalWan) -> CausalWan:
    """Copy a model, without gradient."""
    other = model.like()
    other.load_state_dict({name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, assign=True)
    return other.eval().requires_grad_(False)


def save_network(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically. Collective if the weights are sharded."""
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
    write_tensors(path, layout, map(full_tensor, weights.values()), metadata)


Write = Callable[[Path, Mapping[str, Tensor], Mapping[str, str]], None]


def save_transformer(
    path: Path,
    model: CausalWan,
    config: RolloutConfig,
    latent_size: tuple[int, int],
    metadata: Mapping[str, str],
    write: Write = save_network,
) -> None:
    """Write a file that `sf_core.load_model` reads, with the metadata of `model_metadata` and ``metadata``."""
    write(path, model.state_dict(), {**model_metadata(model, config, latent_size), **metadata})


def model_metadata(model: CausalWan, config: RolloutConfig, latent_size: tuple[int, int]) -> dict[str, str]:
    """Return the metadata that a model's file needs: architecture, rollout settings and latent size."""
    return {
        "sf.num_heads": str(model.arch.num_heads),
        "sf.text_len": str(model.arch.text_len),
        "sf.rollout": json.dumps(config.as_dict()),
        "sf.latent_size": json.dumps(latent_size),
    }
