"""The transformer's weights in a file: selected, renamed, with their factors and with the changes of a LoRA."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..hashing import sample_indices, sampled_values
from .lora import Difference, LowRank, lora_changes
from .quantised import FP8, Scaling, numeric_shape, sampled_rows, scaling_of, sort_factors
from .safetensors_file import StoredTensor, Value, copy_of
from .weight_names import select_weights, split_sets

_NUMBERS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_PATCH = "patch_embedding.weight"
_PATCH_SIZE = (1, 2, 2)  # of every Wan: frames, rows, columns


@dataclass(frozen=True)
class Weight:
    """A stored parameter, and the operations that reading it includes.

    Args:
        stored: The values as the checkpoint has them.
        scaling: Factors of quantised values.
        changes: Changes by LoRAs.
    """

    stored: Value
    scaling: Scaling | None = None
    changes: tuple[LowRank | Difference, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        return numeric_shape(self.stored, self.scaling)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stored values; bfloat16 where they are quantised and reading changes them."""
        changes = self.scaling is not None or bool(self.changes)
        return torch.bfloat16 if changes and self.stored.dtype not in _NUMBERS else self.stored.dtype

    def sampled_values(self) -> Tensor:
        """Read what `hashing.sampled_values` returns of the parameter, scaled; changes by a LoRA are left out."""
        stored, scaling = self.stored, self.scaling
        if scaling is not None and not scaling.is_one_number:
            return sampled_rows(stored, scaling, sample_indices(math.prod(self.shape)))
        values = stored.sampled_values() if isinstance(stored, StoredTensor) else sampled_values(stored)
        return values if scaling is None else values * scaling.factors(1, 1).reshape(())

    def read(self, device: str | torch.device, dtype: torch.dtype) -> Tensor:
        """Read the parameter into a new tensor, rounded once."""
        untouched = self.scaling is None and not self.changes
        wide = dtype if untouched else torch.promote_types(dtype, torch.float32)
        # allocated before the temporary tensors, so that freeing those leaves no gaps in memory
        result = None if wide == dtype else torch.empty(self.shape, dtype=dtype, device=device)
        if self.scaling is None:
            tensor = copy_of(self.stored, device, wide)
        else:
            tensor = self.scaling.apply(copy_of(self.stored, device, self.stored.dtype), wide)
        for change in self.changes:
            change.add_to(tensor)
        return tensor if result is None else result.copy_(tensor)


def transformer_weights(
    tensors: Mapping[str, Value], lora: Mapping[str, Value] | None = None, lora_strength: float = 1.0
) -> dict[str, Weight]:
    """Select the transformer's parameters, under original names, with factors and the changes of a LoRA attached.

    A LoRA that is packed into the file, as PEFT's trainers do it, is one of the changes. Of a file with two sets of
    weights these are those that denoise; see `memory_weights`.

    Raises:
        ValueError: A tensor cannot be read as a weight, or the LoRA does not fit.
    """
    return _weights(split_sets(select_weights(tensors))[0], lora, lora_strength)


def memory_weights(
    tensors: Mapping[str, Value], lora: Mapping[str, Value] | None = None, lora_strength: float = 1.0
) -> dict[str, Weight] | None:
    """Select the second set of a file with two (SGF+), with which keys and values are written. None: it has one set.

    Raises:
        ValueError: As `transformer_weights`.
    """
    memory = split_sets(select_weights(tensors))[1]
    return _weights(memory, lora, lora_strength) if memory else None


def _weights(state: Mapping[str, Value], lora: Mapping[str, Value] | None, lora_strength: float) -> dict[str, Weight]:
    packed = {name: value for name, value in state.items() if ".lora_" in name}
    state = {name: value for name, value in state.items() if name not in packed}
    if packed and not state:
        raise ValueError("this is a LoRA, not a model: load the model that it was trained on, with this as its lora")
    weights = with_scales(_with_patches(state))
    shapes = {name: weight.shape for name, weight in weights.items()}
    added = [lora_changes(packed, shapes, 1.0)] if packed else []
    added += [lora_changes(lora, shapes, lora_strength)] if lora is not None else []
    for name, change in (entry for changes in added for entry in changes.items()):
        weights[name] = replace(weights[name], changes=(*weights[name].changes, change))
    return weights


def _with_patches(state: dict[str, Value]) -> dict[str, Value]:
    """Return the state with the patch embedding as a convolution, if it is stored as a Linear layer (Causal-rCM)."""
    value = state.get(_PATCH)
    if value is None or len(value.shape) != 2 or value.shape[1] % math.prod(_PATCH_SIZE):
        return state
    shape = (value.shape[0], value.shape[1] // math.prod(_PATCH_SIZE), *_PATCH_SIZE)
    return {**state, _PATCH: value.reshape(shape)}


def with_scales(state: Mapping[str, Value]) -> dict[str, Weight]:
    """Attach the factors of quantised weights to them, and drop what only arithmetic in such formats needs.

    Raises:
        ValueError: A tensor is packed in a way that is not read here; the message names it.
    """
    stored, factors, formats = sort_factors(state)
    weights = {}
    for name, value in stored.items():
        layer, _, kind = name.rpartition(".")
        of_weight = kind == "weight"
        scaling = scaling_of(name, value, factors.get(layer, {}) if of_weight else {}, formats.get(layer))
        if scaling is None and value.dtype not in (*_NUMBERS, *FP8):
            raise ValueError(
                f"{name} is stored as {str(value.dtype).removeprefix('torch.')}, which is not read here: take a file "
                "in float32, bf16, fp16, or one whose numbers have factors beside them"
            )
        weights[name] = Weight(value, scaling)
    return weights
