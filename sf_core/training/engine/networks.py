"""Transformers to train: new ones, twins for running averages, and as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ...config import RolloutConfig
from ...files.safetensors_file import write_tensors
from ...model.architecture import WanArchitecture
from ...model.wan import CausalWan
from ...noise import noise_key


def new_transformer(arch: WanArchitecture, seed: int) -> CausalWan:
    """First weights as Wan's own: Xavier for matrices, a head that begins at zero. The same seed gives the same."""
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


def twin(model: CausalWan) -> CausalWan:
    """Another model with the same weights, which need no gradient."""
    with torch.device("meta"):
        other = CausalWan(model.arch)
    other.load_state_dict({name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, assign=True)
    other.attention, other.metadata = model.attention, model.metadata
    other.rollout_config, other.latent_size = model.rollout_config, model.latent_size
    return other.eval().requires_grad_(False)


def save_network(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file with these weights, whole or not at all."""
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
    write_tensors(path, layout, map(whole, weights.values()), metadata)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that several processes hold together (all must ask for it); any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


Write = Callable[[Path, Mapping[str, Tensor], Mapping[str, str]], None]


def save_transformer(
    path: Path,
    model: CausalWan,
    config: RolloutConfig,
    latent_size: tuple[int, int],
    facts: Mapping[str, str],
    write: Write = save_network,
) -> None:
    """As a file that `sf_core.load_model` reads, with all that it should know of itself."""
    write(path, model.state_dict(), {**facts_of(model, config, latent_size), **facts})


def facts_of(model: CausalWan, config: RolloutConfig, latent_size: tuple[int, int]) -> dict[str, str]:
    """What a file says of a model in its metadata."""
    return {
        "sf.num_heads": str(model.arch.num_heads),
        "sf.text_len": str(model.arch.text_len),
        "sf.rollout": json.dumps(asdict(config)),
        "sf.latent_size": json.dumps(latent_size),
    }
