"""Low-rank adapters (LoRA): several networks over one frozen base, which is in memory once.

Each network is a separate `CausalWan` that shares the base's weight tensors. Its linear layers add ``alpha / rank * up
@ down`` to the base's. Nothing is switched on or off, so a block that is recomputed in the backward pass, after another
network has run, gives the same result. The base without adapters is the teacher.
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
from ..recipe import AdapterSettings

LAYERS = (
    *("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"),
    *("cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.o"),
    *("ffn.0", "ffn.2"),
)
PREFIX = "diffusion_model."  # of weight names in ComfyUI


class AdaptedLinear(nn.Module):
    """A frozen linear layer with a float32 adapter, which has no effect at first."""

    def __init__(self, linear: nn.Linear, settings: AdapterSettings, rng: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.factor = settings.alpha / settings.rank
        bound = linear.in_features**-0.5  # the initialisation of PEFT and other trainers
        down = torch.empty(settings.rank, linear.in_features).uniform_(-bound, bound, generator=rng)
        self.down = nn.Parameter(down.to(linear.weight.device), requires_grad=False)
        up = torch.zeros(linear.out_features, settings.rank, device=linear.weight.device)
        self.up = nn.Parameter(up, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output plus the adapter's."""
        low = nn.functional.linear(x, self.down.to(x.dtype))
        adapter = nn.functional.linear(low, self.up.to(x.dtype))
        return torch.add(nn.functional.linear(x, self.weight, self.bias), adapter, alpha=self.factor)


class AdaptedWan(CausalWan):
    """A model over the weights of ``base``, with its own adapters, which are its only trainable parameters.

    Args:
        base: A model without adapters; it is frozen.
        settings: Rank and alpha.
        seed: Seed of the adapters' initial values, which have no effect on the output.
    """

    def __init__(self, base: CausalWan, settings: AdapterSettings, seed: int = 0) -> None:
        with torch.device("meta"):
            super().__init__(base.arch)
        self.load_state_dict(base.requires_grad_(False).state_dict(), assign=True)
        self.copy_settings(base)
        self.base, self.settings = (base,), settings  # a tuple keeps the base from being a submodule
        rng = torch.Generator().manual_seed(noise_key(seed, 0, 0, 0))
        for block in self.blocks:
            for name in LAYERS:
                owner, _, last = name.rpartition(".")
                linear = block.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                setattr(block.get_submodule(owner), last, AdaptedLinear(linear, settings, rng))
        self.eval().requires_grad_(False)

    @property
    def adapted(self) -> dict[str, AdaptedLinear]:
        """The adapted layers by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, AdaptedLinear)}

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the adapters are trained; the base stays frozen, since other networks share it."""
        super().requires_grad_(False)
        for module in self.adapted.values():
            module.down.requires_grad_(requires_grad)
            module.up.requires_grad_(requires_grad)
        return self

    @torch.no_grad()
    def frozen_copy(self) -> AdaptedWan:
        """Copy the adapters over the same base, without gradient."""
        other = AdaptedWan(self.base[0], self.settings)
        for name, module in other.adapted.items():
            module.down.copy_(self.adapted[name].down)
            module.up.copy_(self.adapted[name].up)
        return other

    # Files ----------------------------------------------------------------------------------------------------------

    def lora(self) -> dict[str, Tensor]:
        """Return the adapters under the names that ComfyUI's LoRA loaders and `sf_core.load_model` read."""
        tensors: dict[str, Tensor] = {}
        for name, module in self.adapted.items():
            tensors[f"{PREFIX}{name}.lora_down.weight"] = module.down.detach()
            tensors[f"{PREFIX}{name}.lora_up.weight"] = module.up.detach()
            tensors[f"{PREFIX}{name}.alpha"] = torch.tensor(float(self.settings.alpha))
        return tensors

    @torch.no_grad()
    def load_lora(self, path: Path) -> None:
        """Load the adapters of a file with the tensors of `lora`. Raises ValueError for other layers, rank or alpha."""
        stored, adapted = lora_parts(open_tensors(path)[0]), self.adapted
        if odd := sorted(set(stored) ^ set(adapted)):
            raise ValueError(f"{path} is a LoRA of other layers than the recipe's, such as {odd[0]}")
        for name, module in adapted.items():
            parts = {part: read_value(value) for part, value in stored[name].items()}
            alpha = float(parts.get("alpha", self.settings.rank))
            if set(parts) < {"down", "up"} or parts["down"].shape != module.down.shape or alpha != self.settings.alpha:
                raise ValueError(
                    f"{path} is a LoRA of rank {parts['down'].shape[0]} and alpha {alpha:g}; the recipe has "
                    f"rank = {self.settings.rank}, alpha = {self.settings.alpha:g} under [lora]"
                )
            module.down.copy_(parts["down"])
            module.up.copy_(parts["up"])


def state_without_base(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's ``state_dict`` without the weights of a shared base; for other networks, all of it."""
    shared = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, AdaptedWan)
        for name, parameter in module.named_parameters()
        if not name.endswith((".down", ".up"))
    }
    base_names = {name for name, parameter in network.named_parameters() if id(parameter) in shared}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in base_names}
