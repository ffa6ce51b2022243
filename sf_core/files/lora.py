"""Low-rank adapters (LoRA), merged into the weights of their base as these are read.

PEFT's names (``lora_A``, ``lora_B``), those of kohya and ComfyUI (``lora_down``, ``lora_up``, ``alpha``, and for
whole differences ``diff``, ``diff_b``), under any prefix and naming of layers that checkpoints have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from .safetensors_file import Value, copy_of, read_value
from .weight_names import LORA_GROUPS, meant

_PART = re.compile(
    r"(?P<layer>.+)\.(?:(?P<down>(?:lora_A(?:\.default)?|lora_down)\.weight)"
    r"|(?P<up>(?:lora_B(?:\.default)?|lora_up)\.weight)|(?P<alpha>alpha)|(?P<diff>diff)|(?P<diff_b>diff_b))"
)
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LowRank:
    """``factor * up @ down``."""

    factor: float
    up: Value  # [out, rank]
    down: Value  # [rank, in]

    def add_to(self, weight: Tensor) -> None:
        """In place, computed in the dtype and on the device of ``weight``."""
        up, down = (copy_of(part, weight.device, weight.dtype).flatten(1) for part in (self.up, self.down))
        weight.flatten(1).addmm_(up, down, alpha=self.factor)


@dataclass(frozen=True)
class Difference:
    """``factor * change``."""

    factor: float
    change: Value

    def add_to(self, weight: Tensor) -> None:
        """In place, computed in the dtype and on the device of ``weight``."""
        weight.add_(copy_of(self.change, weight.device, weight.dtype), alpha=self.factor)


def is_lora(names: Collection[str]) -> bool:
    return any(".lora_" in name for name in names)


def lora_parts(lora: Mapping[str, Value], layers: Collection[str] = ()) -> dict[str, dict[str, Value]]:
    """``down``, ``up``, ``alpha``, ``diff``, ``diff_b`` by layer. ``layers``: those that kohya's names can mean.

    Raises ValueError if it is no LoRA, or for keys of no known form, naming them.
    """
    state = meant(lora, LORA_GROUPS)
    if not is_lora(state):
        raise ValueError(f"this is not a LoRA: it has no lora_A, lora_B, lora_down or lora_up (but {_some(state)})")
    joined = {f"lora_unet_{layer.replace('.', '_')}": layer for layer in layers}
    parts: dict[str, dict[str, Value]] = {}
    unknown = []
    for name, tensor in state.items():
        match = _PART.fullmatch(name)
        if match and match.lastgroup:
            layer = joined.get(match["layer"], match["layer"])
            if parts.setdefault(layer, {}).setdefault(match.lastgroup, tensor) is not tensor:
                raise ValueError(f"the LoRA changes {layer} twice, under different names")
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(f"the LoRA has {len(unknown)} keys of no known form: {_some(unknown)}")
    return parts


def lora_changes(lora: Mapping[str, Value], shapes: Shapes, strength: float) -> dict[str, LowRank | Difference]:
    """What is added to which parameter of a base with ``shapes``. Raises ValueError naming all that does not fit."""
    changes: dict[str, LowRank | Difference] = {}
    parts = lora_parts(lora, {name.rpartition(".")[0] for name in shapes})
    if strangers := [layer for layer in parts if f"{layer}.weight" not in shapes]:
        raise ValueError(f"the LoRA changes {len(strangers)} layers that its base has not: {_some(strangers)}")
    for layer, found in parts.items():
        for name, change in _of_layer(layer, found, strength):
            if name in changes or not _fits(change, shapes.get(name)):
                raise ValueError(
                    f"the LoRA's {', '.join(f'{kind} {list(part.shape)}' for kind, part in sorted(found.items()))} "
                    f"for {layer} do not fit its base's {name}, {list(shapes.get(name, ()))}"
                )
            changes[name] = change
    return changes


def _of_layer(layer: str, found: Mapping[str, Value], strength: float) -> Iterator[tuple[str, LowRank | Difference]]:
    if "diff" in found:
        yield f"{layer}.weight", Difference(strength, found["diff"])
    if "diff_b" in found:
        yield f"{layer}.bias", Difference(strength, found["diff_b"])
    if "up" in found and "down" in found:
        rank = max(1, *found["down"].shape[:1])
        alpha = float(read_value(found["alpha"]).sum()) if "alpha" in found else rank  # PEFT's files have none
        yield f"{layer}.weight", LowRank(strength * alpha / rank, found["up"], found["down"])
    elif "up" in found or "down" in found or "alpha" in found:
        raise ValueError(f"the LoRA is not whole: {layer} has {_some(sorted(found))} alone")


def _fits(change: LowRank | Difference, shape: tuple[int, ...] | None) -> bool:
    if shape is None or isinstance(change, Difference):
        return isinstance(change, Difference) and change.change.shape == shape
    up, down = change.up.shape, change.down.shape
    outer = len(up) > 1 and len(down) > 1 and len(shape) > 1 and up[0] == shape[0]
    return outer and math.prod(up[1:]) == down[0] and math.prod(down[1:]) == math.prod(shape[1:])


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "") if names else "nothing"
