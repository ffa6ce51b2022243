"""Parameter names in the formats that published weights are stored in."""

from __future__ import annotations

import re

import torch
from torch import Tensor

State = dict[str, Tensor]

# what a GAN's discriminator adds to the weights of its backbone
GAN: State = {
    "_cls_pred_branch.0.weight": torch.ones(3),
    "_register_tokens.register_tokens": torch.ones(3, 48),
    "_gan_ca_blocks.0.ffn.0.weight": torch.ones(4, 4),
}


def prefixed(prefix: str, state: State) -> State:
    """Put a prefix before each name."""
    return {prefix + name: tensor for name, tensor in state.items()}


def fsdp(name: str) -> str:
    """Return the name under FSDP, activation checkpointing and torch.compile together."""
    name = re.sub(r"^(blocks\.\d+)\.", r"\1._fsdp_wrapped_module._checkpoint_wrapped_module.", name)
    return f"model._fsdp_wrapped_module._orig_mod.{name}"


def diffusers(name: str) -> str:
    """Return the name in `diffusers.WanTransformer3DModel`, independently of the code under test."""
    if name.startswith("blocks."):
        _, number, rest = name.split(".", 2)
        layer, _, kind = rest.rpartition(".")
        attention = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
        names = {f"self_attn.{a}": f"attn1.{b}" for a, b in attention.items()}
        names |= {f"cross_attn.{a}": f"attn2.{b}" for a, b in attention.items()}
        names |= {"ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2", "norm3": "norm2"}
        return f"blocks.{number}." + ("scale_shift_table" if kind == "modulation" else f"{names[layer]}.{kind}")
    embedder = "condition_embedder"
    names = {
        "head.modulation": "scale_shift_table",
        "head.head": "proj_out",
        "time_projection.1": f"{embedder}.time_proj",
        "text_embedding.0": f"{embedder}.text_embedder.linear_1",
        "text_embedding.2": f"{embedder}.text_embedder.linear_2",
        "time_embedding.0": f"{embedder}.time_embedder.linear_1",
        "time_embedding.2": f"{embedder}.time_embedder.linear_2",
    }
    layer, _, kind = name.rpartition(".")
    return names.get(name) or f"{names.get(layer, layer)}.{kind}"
