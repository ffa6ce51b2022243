"""Location of every tensor in torch's ``.pt`` files, without reading the tensors or running the pickle.

A ``.pt`` is a zip archive of one pickle, which names the tensors, and their raw data. `torch.load` with
``weights_only`` limits what the pickle may build, but not how much: compressed members and shared structures of a few
bytes can fill the memory, so they are refused here before `torch.load` sees the file.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TensorLocation = tuple[tuple[int, ...], torch.dtype, int, tuple[int, ...]]  # shape, dtype, offset in the file, stride

MAX_OBJECTS = 10_000_000  # in a pickle, shared ones counted at each use; models have 100,000
MAX_DEPTH = 3  # a file's own groups (generator, generator_ema ...), state dicts, tensors
_BUILDERS = {
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    *(f"torch._utils _rebuild_{kind}" for kind in ("tensor", "tensor_v2", "tensor_v3", "parameter")),
    "torch._utils _rebuild_parameter_with_state",
}
REFUSED = "It is refused: a pickle can run code. Ask for safetensors, or have it saved again as plain tensors"


def open_torch_file(path: Path) -> dict[str, TensorLocation]:
    """Locate the tensors of a file by name, nested names joined by dots.

    Raises:
        ValueError: The file is damaged, or its pickle builds anything but tensors.
    """
    try:
        data, spans = _open_archive(path)
        _check_pickle(path, data)
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # about pickle protocols that it reads nevertheless
            misnamed = path.suffix == ".safetensors"  # torch would go by the name
            contents = torch.load(file if misnamed else path, map_location="meta", weights_only=True, mmap=not misnamed)
        return {name: _locate(path, name, tensor, spans) for name, tensor in nested_tensors(contents)}
    except (OSError, _RefusedError):
        raise
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error: ")[2].partition("\n")[0]
        raise ValueError(f"{path} holds more than tensors ({reason or 'unknown contents'}). {REFUSED}") from error
    except Exception as error:  # damaged bytes can make a reader of pickles fail in any way
        reason = str(error).partition("\n")[0][:200]
        reason = f"{type(error).__name__}: {reason}"
        raise ValueError(f"{path} is a damaged .pt file, cut short perhaps ({reason})") from error


class _RefusedError(ValueError):
    pass


def _open_archive(path: Path) -> tuple[bytes, dict[int, int]]:
    """Return the pickle of an archive of torch.save, and the size of each raw member by its offset in the file."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise _RefusedError(f"{path} is a compressed archive; torch.save writes none. It is refused")
        pickles = [m for m in members if m.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > path.stat().st_size:
            raise _RefusedError(f"{path} is a zip archive, but not one of torch.save: expected one data.pkl in it")
        spans = {}
        for member in members:
            file.seek(member.header_offset + 26)
            name_length, extra_length = struct.unpack("<HH", file.read(4))
            spans[member.header_offset + 30 + name_length + extra_length] = member.file_size
        return archive.read(pickles[0]), spans


def _check_pickle(path: Path, data: bytes) -> None:
    """Raise ValueError unless ``data`` builds only tensors, and few objects even if none were shared."""
    parts: list[list[int]] = []  # the objects that each object contains
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if name in ("STACK_GLOBAL", "INST") or (name == "GLOBAL" and not _is_harmless(str(argument))):
            called = argument.replace(" ", ".") if argument else "something by a name put together"
            raise _RefusedError(f"{path} holds more than tensors: it calls {called}. {REFUSED}")
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            taken = operation.stack_before
            first = len(stack) - len(taken)
            if pickletools.markobject in taken:
                first = marks.pop() - taken.index(pickletools.markobject)
            used, stack[first:] = stack[first:], []
            if name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
                parts[used[0]] += used[1:]
                stack.append(used[0])
            else:
                for _ in operation.stack_after:
                    parts.append(used)
                    stack.append(len(parts) - 1)
    counts: dict[int, int] = {}

    def count(number: int) -> int:
        if number not in counts:
            counts[number] = MAX_OBJECTS  # until it is counted: an object that contains itself never ends
            counts[number] = min(MAX_OBJECTS, 1 + sum(map(count, parts[number])))
        return counts[number]

    if any(count(number) >= MAX_OBJECTS for number in range(len(parts))):
        raise _RefusedError(f"{path} would unfold into more than {MAX_OBJECTS:,} objects; no model has as many")


def _is_harmless(builder: str) -> bool:
    module, _, name = builder.partition(" ")
    if module in ("torch", "torch.storage", "torch.cuda"):
        return name.endswith("Storage") or isinstance(vars(torch).get(name), torch.dtype) or builder in _BUILDERS
    return builder in _BUILDERS


def nested_tensors(contents: Any, prefix: str = "", depth: int = MAX_DEPTH) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dictionaries; other values (step counts, settings) are skipped."""
    if isinstance(contents, Tensor):
        yield prefix, contents
    elif isinstance(contents, Mapping) and depth:
        for name, value in contents.items():
            yield from nested_tensors(value, f"{prefix}.{name}" if prefix else str(name), depth - 1)


def _locate(path: Path, name: str, tensor: Tensor, spans: Mapping[int, int]) -> TensorLocation:
    step, stride = tensor.dtype.itemsize, tensor.stride()
    values = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, stride, strict=True)) if tensor.numel() else 0
    begin, offset = int(tensor.storage_offset()) * step, tensor.untyped_storage()._checkpoint_offset or 0
    # torch computes the offset of a storage from the layout of torch.save, which other programs may not follow
    if values and (tensor.numel() > values or begin + values * step > spans.get(offset, 0)):
        raise _RefusedError(f"{path} is a damaged .pt file: {name}, {list(tensor.shape)}, is not where it should be")
    return tuple(tensor.shape), tensor.dtype, offset + begin, stride
