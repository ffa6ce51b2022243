"""Low-rank adapters (LoRA), merged into the weights of their base while these are read.

Names may be PEFT's (``lora_A``, ``lora_B``) or those of kohya and ComfyUI (``lora_down``, ``lora_up``, ``alpha``, and
for full-rank differences ``diff``, ``diff_b``), under any prefix and naming of layers that checkpoints have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from .safetensors_file import Value, copy_of, read_value
from .weight_names import LORA_GROUPS, select_weights

_PART = re.compile(
    r"(?P<layer>.+)\.(?:(?P<down>(?:lora_A(?:\.\w+)?|lora_down)\.weight)"
    r"|(?P<up>(?:lora_B(?:\.\w+)?|lora_up)\.weight)|(?P<alpha>alpha)|(?P<diff>diff)|(?P<diff_b>diff_b))"
)
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LowRank:
    """The change ``factor * up @ down`` of a weight."""

    factor: float
    up: Value  # [out, rank]
    down: Value  # [rank, in]

    def add_to(self, weight: Tensor) -> None:
        """Add the change to ``weight`` in place, in its dtype and on its device."""
        up, down = (copy_of(part, weight.device, weight.dtype).flatten(1) for part in (self.up, self.down))
        weight.flatten(1).addmm_(up, down, alpha=self.factor)


@dataclass(frozen=True)
class Difference:
    """The change ``factor * change`` of a weight."""

    factor: float
    change: Value

    def add_to(self, weight: Tensor) -> None:
        """Add the change to ``weight`` in place, in its dtype and on its device."""
        weight.add_(copy_of(self.change, weight.device, weight.dtype), alpha=self.factor)


def is_lora(names: Collection[str]) -> bool:
    """Return whether tensors of these names are a LoRA."""
    return any(".lora_" in name for name in names)


def lora_parts(lora: Mapping[str, Value], layers: Collection[str] = ()) -> dict[str, dict[str, Value]]:
    """Sort the tensors of a LoRA by layer and by part: ``down``, ``up``, ``alpha``, ``diff``, ``diff_b``.

    Args:
        lora: Tensors by name.
        layers: The base's layers, which kohya's names (with underscores for dots) are matched with.

    Raises:
        ValueError: It is no LoRA, or has keys of no known form; the message names them.
    """
    state = select_weights(lora, LORA_GROUPS)
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
    """Compute the change of each parameter.

    Args:
        lora: Tensors by name.
        shapes: Shapes of the base's parameters, by name.
        strength: Factor of all changes.

    Raises:
        ValueError: The LoRA does not fit the base; the message names all layers that do not.
    """
    changes: dict[str, LowRank | Difference] = {}
    parts = lora_parts(lora, {name.rpartition(".")[0] for name in shapes})
    if strangers := [layer for layer in parts if f"{layer}.weight" not in shapes]:
        raise ValueError(f"the LoRA changes {len(strangers)} layers that its base has not: {_some(strangers)}")
    for layer, tensors in parts.items():
        for name, change in _layer_changes(layer, tensors, strength):
            if name in changes or not _fits(change, shapes.get(name)):
                raise ValueError(
                    f"the LoRA's {', '.join(f'{kind} {list(part.shape)}' for kind, part in sorted(tensors.items()))} "
                    f"for {layer} do not fit its base's {name}, {list(shapes.get(name, ()))}"
                )
            changes[name] = change
    return changes


def _layer_changes(
    layer: str, tensors: Mapping[str, Value], strength: float
) -> Iterator[tuple[str, LowRank | Difference]]:
    if "diff" in tensors:
        yield f"{layer}.weight", Difference(strength, tensors["diff"])
    if "diff_b" in tensors:
        yield f"{layer}.bias", Difference(strength, tensors["diff_b"])
    if "up" in tensors and "down" in tensors:
        rank = max(1, *tensors["down"].shape[:1])
        alpha = float(read_value(tensors["alpha"]).sum()) if "alpha" in tensors else rank  # PEFT's files have none
        if not math.isfinite(alpha):
            raise ValueError(f"the LoRA's alpha for {layer} is {alpha}; expected a number: the file is damaged")
        yield f"{layer}.weight", LowRank(strength * alpha / rank, tensors["up"], tensors["down"])
    elif "up" in tensors or "down" in tensors or "alpha" in tensors:
        raise ValueError(f"the LoRA is not whole: {layer} has {_some(sorted(tensors))} alone")


def _fits(change: LowRank | Difference, shape: tuple[int, ...] | None) -> bool:
    if shape is None or isinstance(change, Difference):
        return isinstance(change, Difference) and change.change.shape == shape
    up, down = change.up.shape, change.down.shape
    outer = len(up) > 1 and len(down) > 1 and len(shape) > 1 and up[0] == shape[0]
    return outer and math.prod(up[1:]) == down[0] and math.prod(down[1:]) == math.prod(shape[1:])


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "") if names else "nothing"
