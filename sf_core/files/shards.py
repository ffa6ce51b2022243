"""Models in several files: a folder with an index, as large models are published, or one of the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .safetensors_file import StoredTensor, open_tensors

_INDEX = ".safetensors.index.json"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


def open_model(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Open a model without reading its tensors.

    Args:
        path: A file as of `open_tensors`; a folder with an index of several files, or with one file; the index; or
            one of the files, named ``...-00001-of-00003.safetensors``, beside the others.

    Raises:
        ValueError: A file is damaged or something else, or files are missing.
        OSError: A file cannot be read, or the folder holds no model.
    """
    files = model_files(path)
    if files is None:
        return open_tensors(path)
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        parts, facts = open_tensors(file)
        if double := sorted(parts.keys() & tensors.keys()):
            raise ValueError(f"{file} and {tensors[double[0]].path} both have {double[0]}: they are not of one model")
        tensors |= parts
        metadata |= facts
    return tensors, metadata


def model_files(path: Path) -> list[Path] | None:
    """Return the files of a model in several; None if ``path`` is one file.

    Raises:
        ValueError: The index cannot be read, or files are missing.
        OSError: The folder holds no model.
    """
    if path.is_dir():
        return _of_folder(path)
    if path.name.endswith(_INDEX):
        return _of_index(path)
    match = _PART.fullmatch(path.name)
    if match is None or not path.exists() or int(match[3]) > 10_000:
        return None
    count = int(match[3])
    files = [path.with_name(f"{match[1]}-{number:05}-of-{match[3]}.safetensors") for number in range(1, count + 1)]
    return _existing(path, files)


def _of_folder(folder: Path) -> list[Path]:
    indices = sorted(folder.glob(f"*{_INDEX}"))
    if len(indices) == 1:
        return _of_index(indices[0])
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files
    if any(folder.glob("*.distcp")):
        raise IsADirectoryError(
            f"{folder} is a distributed checkpoint, as trainers write it: make one file of it with "
            "'python -m torch.distributed.checkpoint.format_utils dcp_to_torch', and name that"
        )
    raise IsADirectoryError(f"{folder} is a folder; name a file in it")


def _of_index(index: Path) -> list[Path]:
    try:
        names = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is not the index of a model: {error}") from error
    if strange := sorted(name for name in names if Path(name).name != name or "\\" in name):
        raise ValueError(f"{index} names {strange[0]!r}, which is no file beside it")
    if not names:
        raise ValueError(f"{index} names no files")
    return _existing(index, [index.with_name(name) for name in sorted(names)])


def _existing(path: Path, files: list[Path]) -> list[Path]:
    if missing := [file.name for file in files if not file.exists()]:
        some = ", ".join(missing[:3])
        raise ValueError(
            f"{path} is a part of a model in {len(files)} files; {len(missing)} are missing beside it: {some}"
        )
    return files
