"""Quantised weights: which tensors of a file belong together, and their values as numbers again.

A weight may be stored in fp8, int8 or fp4 with factors: one for the tensor, one a channel, or one a block. ComfyUI
marks a format with a tensor ``comfy_quant`` beside the weight, or in the file's metadata (``_quantization_metadata``);
without a mark, the shapes of weight and factors decide. Formats and names are those of ComfyUI's QUANTIZATION.md.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .safetensors_file import StoredTensor, Value, copy_of, read_value

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
QUANTISED = (*FP8, torch.int8, torch.uint8)  # dtypes whose values may be no numbers without their factors
NVFP4, MXFP8, INT8 = "nvfp4", "mxfp8", "int8_tensorwise"
FORMATS = ("float8_e4m3fn", "float8_e5m2", MXFP8, NVFP4, INT8)
METADATA = "_quantization_metadata"
MARK = "comfy_quant"
_FACTORS = ("scale_weight", "weight_scale", "weight_scale_inv", "weight_scale_2", "pre_quant_scale")
# of no use here: marks, and factors of activations
_DROPPED = re.compile(rf"(.+\.)?(scaled_fp8|scale_input|input_scale|{MARK})")
_BLOCK = 128  # rows and columns of a block whose size no shape tells
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # by the three lower bits; the fourth is the sign
# PyTorch's and NVIDIA's order of factors of blocks: tiles of 128 rows by 4 columns, in each four rows side by side
_TILE_ROWS, _TILE_COLUMNS = 128, 4


@dataclass(frozen=True)
class Scaling:
    """The factors of a quantised weight of the matrix shape [rows, columns].

    Args:
        factor: One factor, or one a channel [rows] or [rows, 1], or one a block [rows / a, columns / b].
        tiled: Whether ``factor`` is in the order of tiles, as NVFP4's and MXFP8's are.
        whole: A further factor of the whole weight (NVFP4).
        of_inputs: A factor for each column (``pre_quant_scale``).
        fp4: Whether each byte holds two values of fp4, the first in the upper bits.
        kind: ComfyUI's name of the format, where it is certain that it is this one; else None.
    """

    factor: Value
    tiled: bool = False
    whole: Value | None = None
    of_inputs: Value | None = None
    fp4: bool = False
    kind: str | None = None

    @property
    def is_one_number(self) -> bool:
        """Whether the whole weight has one factor and nothing else."""
        return math.prod(self.factor.shape) == 1 and not self.fp4 and self.of_inputs is None

    def factors(self, rows: int, columns: int) -> Tensor:
        """Read the factors in the order of rows and columns, [rows / a, columns / b] in float32."""
        factor = read_value(self.factor)
        if self.tiled:
            if factor.dtype == torch.uint8:  # as older writers stored these dtypes
                factor = factor.view(torch.float8_e4m3fn if self.fp4 else torch.float8_e8m0fnu)
            size = 16 if self.fp4 else 32
            factor = _untiled(factor.view(torch.uint8), rows, columns // size).view(factor.dtype)
        factor = factor.float()
        if self.whole is not None:
            factor = factor * copy_of(self.whole, "cpu", torch.float32).reshape(())
        return factor.reshape(1, 1) if factor.numel() == 1 else factor.reshape(len(factor), -1)

    def apply(self, raw: Tensor, dtype: torch.dtype, first: int = 0, rows: int | None = None) -> Tensor:
        """Return ``raw`` as numbers in ``dtype``.

        Args:
            raw: Stored rows of the weight.
            dtype: Of the result; it takes all values of the format.
            first: Number of the first of these rows.
            rows: Rows of the whole weight. None: ``raw`` has them all.
        """
        values = _fp4_values(raw, dtype) if self.fp4 else raw.to(dtype)
        matrix = values.flatten(1)
        rows, columns = rows or len(matrix), matrix.shape[1]
        factors = self.factors(rows, columns).to(raw.device, dtype)
        block = block_size(rows, factors.shape[0])
        factors = factors[torch.arange(first, first + len(matrix), device=raw.device) // (block or rows)]
        across = block_size(columns, factors.shape[1])
        if across and columns % across:
            factors = factors.repeat_interleave(across, 1)[:, :columns]
        parts = matrix.view(len(matrix), factors.shape[1], -1)
        parts *= factors[:, :, None]
        if self.of_inputs is not None:
            matrix *= copy_of(self.of_inputs, raw.device, dtype).flatten()
        return values


def block_size(size: int, count: int) -> int | None:
    """Return the rows, or columns, of a block, if ``size`` of them have ``count`` factors; None if that cannot be."""
    if count == 1:
        return size
    if count < 1 or count > size:
        return None
    if -(-size // _BLOCK) == count:
        return _BLOCK
    return size // count if size % count == 0 else None


def numeric_shape(stored: Value, scaling: Scaling | None) -> tuple[int, ...]:
    """Return the shape of a weight as numbers."""
    shape = tuple(stored.shape)
    return (*shape[:-1], shape[-1] * 2) if scaling is not None and scaling.fp4 else shape


def sampled_rows(stored: Value, scaling: Scaling, indices: Tensor) -> Tensor:
    """Read values of a quantised weight as numbers, float32, and not much more.

    Args:
        stored: The stored weight.
        scaling: Its factors.
        indices: Which values, counted in row-major order.
    """
    shape = numeric_shape(stored, scaling)
    columns = math.prod(shape[1:])
    values = []
    for index in indices.tolist():
        row, column = divmod(index, columns)
        in_file = isinstance(stored, StoredTensor) and stored.is_row_major
        raw = stored.rows(row, 1).read() if in_file else read_value(stored)[row : row + 1]  # type: ignore[union-attr]
        values.append(scaling.apply(raw, torch.float32, row, shape[0]).flatten()[column])
    return torch.stack(values)


def with_marks(tensors: Mapping[str, Value], metadata: Mapping[str, str]) -> dict[str, Value]:
    """Return the tensors of a file with the marks of its metadata as tensors beside the weights.

    Raises:
        ValueError: The metadata cannot be read.
    """
    if METADATA not in metadata:
        return dict(tensors)
    try:
        layers = json.loads(metadata[METADATA])["layers"]
        texts = {f"{layer}.{MARK}": json.dumps(mark).encode() for layer, mark in layers.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the file's marks of quantised layers ({METADATA}) make no sense: {error}") from error
    return {**tensors, **{name: torch.tensor(list(text), dtype=torch.uint8) for name, text in texts.items()}}


def layers_of(tensors: Mapping[str, Value]) -> dict[str, dict[str, object]]:
    """Read the marks of all layers, by the layer's name. Raises ValueError if one cannot be read."""
    names = [name for name in tensors if name.endswith(f".{MARK}")]
    return {(layer := name.removesuffix(f".{MARK}")): _mark_of(layer, tensors[name]) for name in names}


def _mark_of(layer: str, value: Value) -> dict[str, object]:
    try:
        mark = json.loads(read_value(value).numpy().tobytes())
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"the file's mark of the quantised layer {layer} makes no sense: {error}") from error
    if not isinstance(mark, dict):
        raise ValueError(f"the file's mark of the quantised layer {layer} makes no sense: {str(mark)[:100]}")
    return mark


def _format_of(layer: str, value: Value) -> str:
    """Read a mark. Raises ValueError if it cannot be read, or names a format that is not read here."""
    mark = _mark_of(layer, value)
    options = mark.get("params")
    rotated = mark.get("convrot") or (isinstance(options, dict) and options.get("convrot"))
    kind = str(mark.get("format"))
    if kind not in FORMATS or rotated:
        raise ValueError(
            f"{layer} is stored as {kind[:40]}{' with rotated columns' if rotated else ''}, which is not read here: "
            f"take a file in float32, bf16, fp16, or one of {', '.join(FORMATS)}"
        )
    return kind


def sort_factors(state: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, dict[str, Value]], dict[str, str]]:
    """Sort the tensors of a file into weights, factors by layer and kind, and marked formats by layer.

    Raises:
        ValueError: A mark cannot be read, or names a format that is not read here.
    """
    weights: dict[str, Value] = {}
    factors: dict[str, dict[str, Value]] = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if kind in _FACTORS:
            factors.setdefault(layer, {})[kind] = value
        elif not _DROPPED.fullmatch(name):
            weights[name] = value
    marks = {name.removesuffix(f".{MARK}"): value for name, value in state.items() if name.endswith(f".{MARK}")}
    return weights, factors, {layer: _format_of(layer, value) for layer, value in marks.items()}


def scaling_of(name: str, stored: Value, factors: Mapping[str, Value], kind: str | None) -> Scaling | None:
    """Return the scaling of a weight; None if its values are numbers as they are.

    Args:
        name: Of the weight, for errors.
        stored: The weight.
        factors: The factors beside it.
        kind: Its format, if the file marks one.

    Raises:
        ValueError: The weight is packed in a way that is not read here; the message says how.
    """
    factor = next((factors[key] for key in _FACTORS[:3] if key in factors), None)
    if factor is None:
        if stored.dtype in QUANTISED and stored.dtype not in FP8:
            raise _unread(name, stored, "without a factor")
        return None
    if kind in (NVFP4, MXFP8):
        return _tiled_scaling(name, stored, factor, factors, kind)
    shape, rows, columns = tuple(factor.shape), stored.shape[0], math.prod(stored.shape[1:])
    one = math.prod(shape) == 1
    channels = len(shape) == 1 and shape[0] == rows
    blocks = len(shape) > 1 and block_size(rows, shape[0]) and block_size(columns, math.prod(shape[1:]))
    if stored.dtype == torch.uint8 or factor.dtype in (*QUANTISED, _E8M0):
        raise _unread(name, stored, f"with factors in {_dtype_name(factor)}, and nothing says in which order")
    if not (one or channels or blocks):
        raise _unread(name, stored, f"of the shape {list(stored.shape)} with factors of the shape {list(shape)}")
    certain = kind or (_dtype_name(stored) if one and stored.dtype in FP8 else None)
    return Scaling(factor, of_inputs=factors.get("pre_quant_scale"), kind=certain)


_E8M0 = getattr(torch, "float8_e8m0fnu", None)


def _tiled_scaling(name: str, stored: Value, factor: Value, factors: Mapping[str, Value], kind: str) -> Scaling:
    fp4 = kind == NVFP4
    rows, columns = stored.shape[0], stored.shape[-1] * (2 if fp4 else 1)
    blocks = columns // (16 if fp4 else 32)
    expected = -(-rows // _TILE_ROWS) * _TILE_ROWS * -(-blocks // _TILE_COLUMNS) * _TILE_COLUMNS
    if math.prod(factor.shape) != expected or len(stored.shape) != 2 or (fp4 and "weight_scale_2" not in factors):
        raise _unread(name, stored, f"marked as {kind}, of the shape {list(stored.shape)} with {list(factor.shape)}")
    return Scaling(factor, True, factors.get("weight_scale_2"), factors.get("pre_quant_scale"), fp4, kind)


def _unread(name: str, stored: Value, how: str) -> ValueError:
    return ValueError(
        f"{name} is stored as {_dtype_name(stored)}, {how}, which is not read here: take a file in float32, bf16, "
        "fp16, in fp8 or int8 with factors, or one that ComfyUI's quantisation wrote"
    )


def _dtype_name(value: Value) -> str:
    return str(value.dtype).removeprefix("torch.")


def _untiled(factors: Tensor, rows: int, columns: int) -> Tensor:
    """Return tiled bytes in the order of rows and columns, without the padding."""
    down, across = -(-rows // _TILE_ROWS), -(-columns // _TILE_COLUMNS)
    tiles = factors.reshape(down, across, 32, 4, _TILE_COLUMNS)  # in a tile, row 32 a + b is at [b, a]
    return tiles.permute(0, 3, 2, 1, 4).reshape(down * _TILE_ROWS, across * _TILE_COLUMNS)[:rows, :columns].contiguous()


def _fp4_values(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return two values for each byte of [rows, bytes], the one in the upper bits first."""
    values = torch.tensor([*_FP4, *(-value for value in _FP4)], dtype=dtype, device=packed.device)
    pairs = torch.stack((packed >> 4, packed & 15), -1).flatten(-2)
    return values[pairs.int()]
