"""Small random models as files, under the names and shapes of the real ones, for ComfyUI's own loaders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sf_core.model.architecture import WanArchitecture
from sf_core.model.wan import CausalWan
from tools.comfyui.server import Server

# as large as a model must be for ComfyUI to read it off its weights: heads of 128, text of 4096
ARCH = WanArchitecture(dim=256, ffn_dim=512, num_layers=2, num_heads=2)
STRENGTH = 0.7


def wan(seed: int = 0, arch: WanArchitecture = ARCH) -> dict[str, Tensor]:
    """Weights that neither die out nor explode."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in CausalWan(arch).named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 1
        scale = 0.1 if name.endswith("bias") else 0.7 if "modulation" in name else fan_in**-0.5
        state[name] = torch.randn(shape, generator=generator) * scale
        if "norm" in name and name.endswith("weight"):
            state[name] = 1 + 0.1 * state[name]
    return state


def lora(seed: int = 1, rank: int = 4) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A LoRA in ComfyUI's names, and what it adds to each weight at strength 1."""
    generator = torch.Generator().manual_seed(seed)
    file: dict[str, Tensor] = {}
    added: dict[str, Tensor] = {}
    for name, weight in wan().items():
        if weight.ndim != 2 or not name.endswith(".weight"):
            continue
        rows, columns = weight.shape
        up = torch.randn(rows, rank, generator=generator) * rank**-0.5
        down = torch.randn(rank, columns, generator=generator) * 0.3 * columns**-0.5
        layer = "diffusion_model." + name.removesuffix(".weight")
        file |= {f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}
        file[f"{layer}.alpha"] = torch.tensor(float(rank))
        added[name] = up @ down
    return file, added


def merged(strength: float) -> dict[str, Tensor]:
    _, added = lora()
    return {name: weight + strength * added[name] if name in added else weight for name, weight in wan().items()}


def put(
    server: Server, kind: str, name: str, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> str:
    """A file in the server's models, once; its name for the loaders."""
    path = server.base / "models" / kind / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(f"{path}.part")
        if path.suffix == ".safetensors":
            save_file({key: value.contiguous() for key, value in state.items()}, part, metadata)
        else:
            torch.save(state, part)
        part.replace(path)
    return name
