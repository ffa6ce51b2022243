"""Low-rank adapters (LoRA): networks that are trained over one frozen base, which is in memory once.

Each is a whole `CausalWan` of its own, whose weights are the very tensors of the base, and whose linear layers add
``alpha / rank * up @ down`` to what theirs give. So nothing is switched on or off: a block that is computed again in
the backward pass, long after another network ran, is the same block. The base itself, bare, is the teacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from ...files.lora import lora_parts
from ...files.safetensors_file import open_tensors, read_value
from ...model.wan import CausalWan
from ...noise import noise_key
from ..recipe import LowRank

LAYERS = (
    *("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"),
    *("cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.o"),
    *("ffn.0", "ffn.2"),
)
PREFIX = "diffusion_model."  # of ComfyUI's names


class AdaptedLinear(nn.Module):
    """A linear layer and what is learnt on top of it, in float32; it begins as the layer itself."""

    def __init__(self, linear: nn.Linear, settings: LowRank, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.factor = settings.alpha / settings.rank
        bound = linear.in_features**-0.5  # as PEFT and the other trainers begin
        down = torch.empty(settings.rank, linear.in_features).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(linear.weight.device), requires_grad=False)
        up = torch.zeros(linear.out_features, settings.rank, device=linear.weight.device)
        self.up = nn.Parameter(up, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        low = nn.functional.linear(x, self.down.to(x.dtype))
        added = nn.functional.linear(low, self.up.to(x.dtype))
        return torch.add(nn.functional.linear(x, self.weight, self.bias), added, alpha=self.factor)


class AdaptedWan(CausalWan):
    """A model over the weights of ``base``, with adapters of its own, the only parameters that can be trained.

    base: bare; it is frozen. seed: of the adapters' first values, which change nothing.
    """

    def __init__(self, base: CausalWan, settings: LowRank, seed: int = 0) -> None:
        with torch.device("meta"):
            super().__init__(base.arch)
        self.load_state_dict(base.requires_grad_(False).state_dict(), assign=True)
        self.copy_settings(base)
        self.base, self.settings = (base,), settings  # in a tuple, so that it is no submodule
        generator = torch.Generator().manual_seed(noise_key(seed, 0, 0, 0))
        for block in self.blocks:
            for name in LAYERS:
                owner, _, last = name.rpartition(".")
                linear = block.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                setattr(block.get_submodule(owner), last, AdaptedLinear(linear, settings, generator))
        self.eval().requires_grad_(False)

    @property
    def adapted(self) -> dict[str, AdaptedLinear]:
        """By name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, AdaptedLinear)}

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Of the adapters; the base stays frozen, since it is others' too."""
        super().requires_grad_(False)
        for module in self.adapted.values():
            module.down.requires_grad_(requires_grad)
            module.up.requires_grad_(requires_grad)
        return self

    @torch.no_grad()
    def twin(self) -> AdaptedWan:
        """Another over the same base, with copies of the adapters, which need no gradient."""
        other = AdaptedWan(self.base[0], self.settings)
        for name, module in other.adapted.items():
            module.down.copy_(self.adapted[name].down)
            module.up.copy_(self.adapted[name].up)
        return other

    # Files ----------------------------------------------------------------------------------------------------------

    def lora(self) -> dict[str, Tensor]:
        """The adapters as ComfyUI's LoRA loaders and `sf_core.load_model` read them."""
        found: dict[str, Tensor] = {}
        for name, module in self.adapted.items():
            found[f"{PREFIX}{name}.lora_down.weight"] = module.down.detach()
            found[f"{PREFIX}{name}.lora_up.weight"] = module.up.detach()
            found[f"{PREFIX}{name}.alpha"] = torch.tensor(float(self.settings.alpha))
        return found

    @torch.no_grad()
    def load_lora(self, path: Path) -> None:
        """Take over the adapters of a file that `lora` was written to. Raises ValueError for any other."""
        stored, mine = lora_parts(open_tensors(path)[0]), self.adapted
        if odd := sorted(set(stored) ^ set(mine)):
            raise ValueError(f"{path} is a LoRA of other layers than the recipe's, such as {odd[0]}")
        for name, module in mine.items():
            parts = {part: read_value(value) for part, value in stored[name].items()}
            alpha = float(parts.get("alpha", self.settings.rank))
            if set(parts) < {"down", "up"} or parts["down"].shape != module.down.shape or alpha != self.settings.alpha:
                raise ValueError(
                    f"{path} is a LoRA of rank {parts['down'].shape[0]} and alpha {alpha:g}; the recipe has "
                    f"rank = {self.settings.rank}, alpha = {self.settings.alpha:g} under [lora]"
                )
            module.down.copy_(parts["down"])
            module.up.copy_(parts["up"])


def own_state(network: nn.Module) -> dict[str, Tensor]:
    """What a network's state is beside the base that it shares with others: of a bare one, all."""
    shared = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, AdaptedWan)
        for name, parameter in module.named_parameters()
        if not name.endswith((".down", ".up"))
    }
    bases = {name for name, parameter in network.named_parameters() if id(parameter) in shared}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in bases}
