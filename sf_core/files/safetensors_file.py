"""Files of named tensors: reading of safetensors and torch's ``.pt``, and writing of safetensors, tensor by tensor.

Tensors are read with plain reads into fresh memory, not mapped as `safetensors` and `torch.load` do it: the pages of a
mapped file count as memory of this process as long as the mapping lives, so that a model and its file would both be in
memory at the peak (benchmarks/load_memory.py).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..hashing import sample_indices, sampled_values
from .atomic_write import atomic_write
from .file_kinds import TORCH_ENDINGS, is_zip, looks_like_safetensors, other_kind
from .torch_file import REFUSED, open_torch_file

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
if hasattr(torch, "float8_e8m0fnu"):  # the factors of MXFP8
    _DTYPES["F8_E8M0"] = torch.float8_e8m0fnu
PIECE = 2**16  # values converted at a time: few, so that their freed memory does not fragment the heap
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in its file.

    Args:
        path: The file.
        shape: Of the tensor.
        dtype: Of the stored values.
        offset: Bytes from the beginning of the file to the first value.
        stride: In values; None for row-major order.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    stride: tuple[int, ...] | None = None

    def read(self) -> Tensor:
        """Read the tensor, contiguous, into new memory.

        Raises:
            ValueError: The file has become shorter since it was opened.
        """
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype, device="cpu")
        stride = self.stride or _row_major(self.shape)
        extent = 1 + sum((n - 1) * s for n, s in zip(self.shape, stride, strict=True))
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return self._values(file, extent).as_strided(self.shape, stride).contiguous()

    @property
    def is_row_major(self) -> bool:
        """Whether the values are stored without gaps in row-major order."""
        return self.stride in (None, _row_major(self.shape))

    def reshape(self, shape: tuple[int, ...]) -> Tensor | StoredTensor:
        """Return the tensor in another shape of as many values; it is read only if its order is another one."""
        return replace(self, shape=shape, stride=None) if self.is_row_major else self.read().reshape(shape)

    def rows(self, start: int, count: int) -> StoredTensor:
        """Return a part of the first dimension of a row-major tensor."""
        assert self.is_row_major
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        return replace(self, shape=(count, *self.shape[1:]), offset=self.offset + start * row_bytes, stride=None)

    def view_of(self, contents: Tensor) -> Tensor:
        """Return the tensor as a view of its file's ``contents``, in bytes.

        Raises:
            ValueError: The file has become shorter since it was opened.
        """
        stride = self.stride or _row_major(self.shape)
        extent = 1 + sum((n - 1) * s for n, s in zip(self.shape, stride, strict=True))
        part = contents[self.offset : self.offset + extent * self.dtype.itemsize]
        if len(part) < extent * self.dtype.itemsize:
            raise ValueError(f"{self.path} has become shorter since it was opened")
        return part.view(self.dtype).as_strided(self.shape, stride)

    def sampled_values(self) -> Tensor:
        """Read what `hashing.sampled_values` returns of the tensor, and not much more."""
        count = math.prod(self.shape)
        if not self.is_row_major or count <= PIECE:
            return sampled_values(self.read())
        with self.path.open("rb") as file:
            values = []
            for index in sample_indices(count).tolist():
                file.seek(self.offset + index * self.dtype.itemsize)
                values.append(self._values(file, 1))
        return torch.cat(values).float()

    def to(self, device: str | torch.device, dtype: torch.dtype) -> Tensor:
        """Read the tensor to ``device`` in ``dtype``; on the CPU piece by piece, without a second copy of the whole."""
        if dtype == self.dtype or not self.is_row_major or torch.device(device).type != "cpu":
            return self.read().to(device, dtype)
        result = torch.empty(self.shape, dtype=dtype, device=device)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for piece in result.view(-1).split(PIECE):
                piece.copy_(self._values(file, len(piece)))
        return result

    def _values(self, file: BinaryIO, count: int) -> Tensor:
        data = torch.empty(count * self.dtype.itemsize, dtype=torch.uint8, device="cpu")
        if file.readinto(data.numpy().data) < len(data):  # type: ignore[attr-defined]
            raise ValueError(f"{self.path} has become shorter since it was opened")
        return data.view(self.dtype)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


Value = Tensor | StoredTensor


def read_value(value: Value) -> Tensor:
    """Return the tensor itself, read if it is still in its file."""
    return value.read() if isinstance(value, StoredTensor) else value


def copy_of(value: Value, device: str | torch.device, dtype: torch.dtype) -> Tensor:
    """Return a contiguous copy on ``device`` in ``dtype``."""
    if isinstance(value, StoredTensor):
        return value.to(device, dtype)
    return value.to(device, dtype, copy=True, memory_format=torch.contiguous_format)


def mapped(values: Mapping[str, Value]) -> dict[str, Tensor]:
    """Return tensors whose memory is their files, mapped: what is not used is not read, and what is may be dropped.

    A change of such a tensor does not reach its file. Tensors that their dtype cannot view where they are are read.
    """
    files: dict[Path, Tensor] = {}
    tensors = {}
    for name, value in values.items():
        if not isinstance(value, StoredTensor):
            tensors[name] = value
        elif 0 in value.shape or value.offset % value.dtype.itemsize:
            tensors[name] = value.read()
        else:
            path = value.path
            if path not in files:
                size = path.stat().st_size
                files[path] = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
            tensors[name] = value.view_of(files[path])
    return tensors


def open_tensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Open a file of safetensors or of `torch.save` without reading its tensors. Its contents count, not its ending.

    Returns:
        The tensors by name, nested names of a ``.pt`` joined by dots, and the metadata.

    Raises:
        ValueError: The file is damaged, is something else, or is a pickle that could run code.
        OSError: The file cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if is_zip(path):
        locations = open_torch_file(path)
        return {name: StoredTensor(path, *location) for name, location in locations.items()}, {}
    if kind := other_kind(path):
        raise ValueError(f"{path} {kind}")
    if path.suffix.lower() in TORCH_ENDINGS and not looks_like_safetensors(path):
        raise ValueError(f"{path} is no archive of torch.save but a bare pickle, or is damaged. {REFUSED}")
    return _open_safetensors(path)


def _open_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt"):  # checks names, sizes and that nothing overlaps or is missing
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is cut short: {error}") from error
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{path}: {name} is stored as {entry['dtype']}; known are {', '.join(_DTYPES)}")
        start = 8 + length + entry["data_offsets"][0]
        tensors[name] = StoredTensor(path, tuple(entry["shape"]), _DTYPES[entry["dtype"]], start)
    return tensors, metadata


def write_tensors(
    path: Path,
    layout: Mapping[str, tuple[Sequence[int], torch.dtype]],
    values: Iterable[Tensor],
    metadata: Mapping[str, str],
    sync: bool = True,
) -> None:
    """Write a safetensors file that appears under its name only when it is complete.

    Args:
        path: The file; its folder must exist.
        layout: Shape and dtype by name.
        values: The data in the order of ``layout``, in any number of pieces; one is in memory at a time.
        metadata: Written into the header.
        sync: See `atomic_write`.

    Raises:
        OSError: The file cannot be written; what was there before is left.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for name, (shape, dtype) in layout.items():
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    try:
        with atomic_write(path, sync) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor in values:
                file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
