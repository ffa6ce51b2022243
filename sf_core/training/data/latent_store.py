"""Latents of clips on disk: encoded once, also across interruptions, and read back row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...files.atomic_write import atomic_write
from ...files.safetensors_file import StoredTensor, open_tensors, write_tensors
from ..engine.process_group import Group
from .shuffled import Shuffled

EncodeProgress = Callable[[int, int], None]  # (clips encoded, clips in total)

_MANIFEST = "manifest.json"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ClipSource(Protocol):
    """An indexed source of clips: frames [T, H, W, 3] float32 in 0..1, all of one shape, and a caption."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, str]: ...


class FrameEncoder(Protocol):
    """An encoder of frames, such as any VAE of `sf_core`."""

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames [B, T, H, W, 3] to latents [B, C, F, H, W]."""
        ...


@dataclass(frozen=True)
class _Manifest:
    """The intended content of a folder of latents."""

    key: str
    clips: int
    shard_clips: int
    dtype: str

    @property
    def shards(self) -> int:
        return -(-self.clips // self.shard_clips)

    def clips_of(self, shard: int) -> range:
        return range(shard * self.shard_clips, min((shard + 1) * self.shard_clips, self.clips))


@dataclass(frozen=True)
class _Shard:
    latents: StoredTensor  # [n, C, F, H, W]
    captions: list[str]

    def row(self, number: int) -> Tensor:
        """Read the latents [C, F, H, W] of one clip, float32, and nothing else."""
        shard, shape = self.latents, self.latents.shape[1:]
        size = torch.Size(shape).numel() * shard.dtype.itemsize
        return replace(shard, shape=shape, offset=shard.offset + number * size).read().float()


# Writing ------------------------------------------------------------------------------------------------------------


def encode_clips(
    source: ClipSource,
    vae: FrameEncoder,
    folder: Path,
    key: str,
    shard_clips: int = 64,
    progress: EncodeProgress | None = None,
    dtype: torch.dtype = torch.float32,
    group: Group | None = None,
) -> LatentStore:
    """Encode all clips of a source into ``folder``, except the shards that it already has.

    A killed run loses only its current shard. The next run continues with that shard and ends with the same bytes.

    Args:
        source: The clips.
        vae: The encoder.
        folder: Folder of the latents; a missing or damaged shard in it is encoded again.
        key: Cache key: the settings of the source and the fingerprint of the VAE.
        shard_clips: Clips per file; the latents of one file are in memory at once.
        progress: Called after each clip.
        dtype: Stored dtype, float32 or bfloat16.
        group: Processes that share the shards; None: this process alone.

    Raises:
        ValueError: For a folder of latents with another key, number of clips, shard size or dtype; for latents that
            are not finite or differ in shape. Complete shards are kept.
        OSError: If the disk is full. Complete shards are kept.
    """
    names = {kind: name for name, kind in _DTYPES.items()}
    if dtype not in names or shard_clips < 1 or not len(source):
        raise ValueError(
            f"{len(source)} clips, {shard_clips} a shard, as {dtype}: expected at least one of each, and "
            f"{' or '.join(_DTYPES)}"
        )
    manifest = _Manifest(key, len(source), shard_clips, names[dtype])
    group = group or Group()
    with group.rank0_first():
        _claim(Path(folder), manifest)
    shape: tuple[int, ...] | None = None  # of a clip's latents
    for number in group.share(manifest.shards):
        try:
            shard = _open_shard(Path(folder), manifest, number)
        except (ValueError, OSError):
            _encode_shard(source, vae, Path(folder), manifest, number, shape, progress)
            shard = _open_shard(Path(folder), manifest, number)
        else:
            if progress:
                progress(manifest.clips_of(number).stop, manifest.clips)
        shape = shard.latents.shape[1:]
    group.barrier()
    if progress and group.size > 1:
        progress(manifest.clips, manifest.clips)
    return LatentStore.open(folder)


def _claim(folder: Path, manifest: _Manifest) -> None:
    """Write the manifest, or check that an existing one is the same."""
    path = folder / _MANIFEST
    if path.exists():
        stored, wanted = asdict(_read_manifest(folder)), asdict(manifest)
        changed = [f"{name} {stored[name]!r}, not {wanted[name]!r}" for name in stored if stored[name] != wanted[name]]
        if changed:
            raise ValueError(
                f"the latents in {folder} were made with other settings: {'; '.join(changed)}. Name another "
                "folder, or delete this one"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(json.dumps(asdict(manifest)), encoding="utf-8")


def _encode_shard(
    source: ClipSource,
    vae: FrameEncoder,
    folder: Path,
    manifest: _Manifest,
    number: int,
    shape: tuple[int, ...] | None,
    progress: EncodeProgress | None,
) -> None:
    """Encode the clips of one shard, one by one: in a batch, a kernel may round a clip differently."""
    rows: list[Tensor] = []
    captions: list[str] = []
    for index in manifest.clips_of(number):
        frames, caption = source[index]
        with torch.no_grad():
            latents = vae.encode(frames[None])[0].cpu()
        shape = shape or tuple(latents.shape)
        if latents.shape != shape:
            raise ValueError(
                f"the latents of clip {index} ({caption!r}) are {list(latents.shape)}, those of the clips before it "
                f"{list(shape)}; all clips must have one size and number of frames"
            )
        if not bool(latents.isfinite().all()):
            raise ValueError(f"the latents of clip {index} ({caption!r}) have NaN or Inf in them; look at that clip")
        rows.append(latents.to(_DTYPES[manifest.dtype]))
        captions.append(caption)
        if progress:
            progress(index + 1, manifest.clips)
    assert shape is not None
    layout = {"latents": ((len(rows), *shape), _DTYPES[manifest.dtype])}
    write_tensors(_shard_path(folder, number), layout, rows, {"key": manifest.key, "captions": json.dumps(captions)})


# Reading ------------------------------------------------------------------------------------------------------------


class LatentStore:
    """The latents that `encode_clips` wrote. Batches are read row by row, so they need not fit into memory.

    Attributes:
        key: Cache key of the latents.
        shape: (C, F, H, W) of a clip's latents.
        captions: Captions of all clips.
    """

    def __init__(self, key: str, shards: list[_Shard]) -> None:
        """Take shards, of which all but the last hold the same number of clips. Use `open` instead."""
        self.key = key
        self.shape: tuple[int, ...] = shards[0].latents.shape[1:]
        self.captions = [caption for shard in shards for caption in shard.captions]
        self._shards = shards
        self._order = Shuffled(len(self.captions), seed=0)

    @staticmethod
    def open(folder: str | Path) -> LatentStore:
        """Open the store in ``folder``, reading only its metadata.

        Raises:
            ValueError: If there is no store, or it is damaged or incomplete, with the number of usable shards.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        shards: list[_Shard] = []
        problems: list[str] = []
        for number in range(manifest.shards):
            try:
                shards.append(_open_shard(folder, manifest, number))
            except (ValueError, OSError) as error:
                problems.append(str(error))
        if problems:
            raise ValueError(
                f"the latents in {folder} are not complete: {len(shards)} of {manifest.shards} shards are there and "
                f"whole. Encode the same clips again: complete shards are kept. The first problem: {problems[0]}"
            )
        if len({shard.latents.shape[1:] for shard in shards}) > 1:
            raise ValueError(f"the latents in {folder} are of several shapes; delete the folder and encode again")
        return LatentStore(manifest.key, shards)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """Return latents [C, F, H, W] float32 and caption of clip ``index``, in the order of the source."""
        shard, row = divmod(range(len(self))[index], len(self._shards[0].captions))
        return self._shards[shard].row(row), self.captions[index]

    def batch(self, index: int, size: int, seed: int) -> tuple[Tensor, list[str]]:
        """Return latents [B, C, F, H, W] float32 and captions of batch ``index`` if every batch has ``size``.

        The result does not depend on earlier calls. Each epoch is a new permutation of all clips, by ``seed``; a batch
        may span two epochs.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file has become shorter.
        """
        if seed != self._order.seed:
            self._order = Shuffled(len(self), seed)
        clips = [self[i] for i in self._order.batch(index, size)]
        return torch.stack([latents for latents, _ in clips]), [caption for _, caption in clips]


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / _MANIFEST
    if not path.is_file():
        raise ValueError(f"there are no latents in {folder} ({_MANIFEST} is missing); encode_clips makes them")
    try:
        fields: Mapping[str, object] = json.loads(path.read_bytes())
        manifest = _Manifest(**fields)  # type: ignore[arg-type]
        valid = manifest.dtype in _DTYPES and manifest.clips > 0 and manifest.shard_clips > 0
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete the folder and encode again") from error
    if not valid:
        raise ValueError(f"{path} is damaged ({fields}); delete the folder and encode again")
    return manifest


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"latents-{number:05d}.safetensors"


def _open_shard(folder: Path, manifest: _Manifest, number: int) -> _Shard:
    """Open a shard. Raises ValueError or OSError if it is missing, damaged, or of other latents."""
    path = _shard_path(folder, number)
    tensors, metadata = open_tensors(path)
    latents, count = tensors.get("latents"), len(manifest.clips_of(number))
    captions = json.loads(metadata.get("captions", "[]"))
    complete = isinstance(captions, list) and len(captions) == count
    if not complete or latents is None or len(latents.shape) != 5 or latents.shape[0] != count:
        raise ValueError(f"{path} does not hold the latents [{count}, C, F, H, W] and captions of {count} clips")
    if latents.dtype != _DTYPES[manifest.dtype] or metadata.get("key") != manifest.key:
        raise ValueError(f"{path} belongs to other latents")
    return _Shard(latents, captions)
