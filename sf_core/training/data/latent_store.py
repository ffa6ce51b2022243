"""Latents of clips on disk: encoded once, whenever that is killed, and read back by rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...files.safetensors_file import StoredTensor, open_tensors, write_tensors
from ..engine.process_group import Group
from .shuffled import Shuffled

Progress = Callable[[int, int], None]  # clips done, of how many

_MANIFEST = "manifest.json"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ClipSource(Protocol):
    """Clips by number: frames [T, H, W, 3] float32 in 0..1, all of one shape, and a caption."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, str]: ...


class FrameEncoder(Protocol):
    """What makes latents [B, C, F, H, W] of frames [B, T, H, W, 3]: any VAE of `sf_core`."""

    def encode(self, frames: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Manifest:
    """What a folder of latents is meant to hold."""

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
        """Latents [C, F, H, W] of one clip, float32; nothing else is read."""
        whole, shape = self.latents, self.latents.shape[1:]
        size = torch.Size(shape).numel() * whole.dtype.itemsize
        return replace(whole, shape=shape, offset=whole.offset + number * size).read().float()


# Writing ------------------------------------------------------------------------------------------------------------


def encode_clips(
    source: ClipSource,
    vae: FrameEncoder,
    folder: Path,
    key: str,
    shard_clips: int = 64,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.float32,
    group: Group | None = None,
) -> LatentStore:
    """The latents of all clips, in ``folder``: what is there is kept, what is missing or damaged is encoded.

    A run that was killed loses the shard it was at; the next goes on from there, and ends with the same bytes.
    key: names what the latents are made from, the source's settings and the VAE.
    shard_clips: clips a file; a file's latents are in memory at once while it is made.
    dtype: in which they are stored, float32 or bfloat16.
    group: processes that do it together, each its part of the files; None: one.
    Raises ValueError for a folder with latents of another key, number of clips, shard size or dtype, and for latents
    that are not finite or not of one shape; OSError if the disk is full. Complete shards stay in any case.
    """
    names = {kind: name for name, kind in _DTYPES.items()}
    if dtype not in names or shard_clips < 1 or not len(source):
        raise ValueError(
            f"{len(source)} clips, {shard_clips} a shard, as {dtype}: expected at least one of each, and "
            f"{' or '.join(_DTYPES)}"
        )
    manifest = _Manifest(key, len(source), shard_clips, names[dtype])
    group = group or Group()
    with group.first_alone():
        _claim(Path(folder), manifest)
    shape: tuple[int, ...] | None = None  # of the latents of a clip
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
    group.wait()
    if progress and group.size > 1:
        progress(manifest.clips, manifest.clips)
    return LatentStore.open(folder)


def _claim(folder: Path, manifest: _Manifest) -> None:
    """Write the manifest, or make sure that the one that is there is the same."""
    path = folder / _MANIFEST
    if path.exists():
        there, wanted = asdict(_read_manifest(folder)), asdict(manifest)
        other = [f"{name} {there[name]!r}, not {wanted[name]!r}" for name in there if there[name] != wanted[name]]
        if other:
            raise ValueError(
                f"the latents in {folder} are others: made with {'; '.join(other)}. Name another folder, or delete "
                "this one"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(manifest)), encoding="utf-8")
    part.replace(path)


def _encode_shard(
    source: ClipSource,
    vae: FrameEncoder,
    folder: Path,
    manifest: _Manifest,
    number: int,
    shape: tuple[int, ...] | None,
    progress: Progress | None,
) -> None:
    """Clips go through the VAE one by one: a kernel may round a clip otherwise when it has company."""
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
    """The latents that `encode_clips` made; as large as the disk, since batches are read row by row.

    ``key``: what they were made from. ``shape``: (C, F, H, W) of a clip's latents. ``captions``: of all clips.
    """

    def __init__(self, key: str, shards: list[_Shard]) -> None:
        """For `open`: all but the last of ``shards`` hold the same number of clips."""
        self.key = key
        self.shape: tuple[int, ...] = shards[0].latents.shape[1:]
        self.captions = [caption for shard in shards for caption in shard.captions]
        self._shards = shards
        self._order = Shuffled(len(self.captions), seed=0)

    @staticmethod
    def open(folder: str | Path) -> LatentStore:
        """The store in ``folder``; reads only what describes it.

        Raises ValueError where there is none, and where it is damaged or not complete, saying how much of it is there.
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
                f"whole. Encode the same clips again: it goes on from what is there. The first problem: {problems[0]}"
            )
        if len({shard.latents.shape[1:] for shard in shards}) > 1:
            raise ValueError(f"the latents in {folder} are of several shapes; delete the folder and encode again")
        return LatentStore(manifest.key, shards)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """Latents [C, F, H, W] float32 and caption of clip ``index``, in the order of the source."""
        shard, row = divmod(range(len(self))[index], len(self._shards[0].captions))
        return self._shards[shard].row(row), self.captions[index]

    def batch(self, index: int, size: int, seed: int) -> tuple[Tensor, list[str]]:
        """Latents [B, C, F, H, W] float32 and captions of batch ``index`` where every batch has ``size``.

        The same at any time, in any order of calls. Each epoch is a new permutation of all clips, by ``seed``; a batch
        runs on over the end of one. Raises OSError or ValueError if a file has gone or become shorter.
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
        found: Mapping[str, object] = json.loads(path.read_bytes())
        manifest = _Manifest(**found)  # type: ignore[arg-type]
        sound = manifest.dtype in _DTYPES and manifest.clips > 0 and manifest.shard_clips > 0
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete the folder and encode again") from error
    if not sound:
        raise ValueError(f"{path} is damaged ({found}); delete the folder and encode again")
    return manifest


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"latents-{number:05d}.safetensors"


def _open_shard(folder: Path, manifest: _Manifest, number: int) -> _Shard:
    """Raises ValueError or OSError unless the shard is there, whole, and of these latents."""
    path = _shard_path(folder, number)
    tensors, metadata = open_tensors(path)
    latents, count = tensors.get("latents"), len(manifest.clips_of(number))
    captions = json.loads(metadata.get("captions", "[]"))
    sound = isinstance(captions, list) and len(captions) == count
    if not sound or latents is None or len(latents.shape) != 5 or latents.shape[0] != count:
        raise ValueError(f"{path} does not hold the latents [{count}, C, F, H, W] and captions of {count} clips")
    if latents.dtype != _DTYPES[manifest.dtype] or metadata.get("key") != manifest.key:
        raise ValueError(f"{path} belongs to other latents")
    return _Shard(latents, captions)
