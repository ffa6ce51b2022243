"""The files of a distributed checkpoint, which one process may read too.

`torch.distributed` is imported where it is used: a training in one process does without it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

SHARDS = (
    "sf.shards"  # in a state's metadata: the folder beside it that holds its tensors, if several processes wrote it
)
SHARD_FOLDERS = ("state-a", "state-b")  # taken in turn, so that the current one is never written to


def read_shards(folder: Path, mesh: DeviceMesh | None = None) -> dict[str, Tensor]:
    """The tensors of a distributed checkpoint, whole, or each in equal parts over ``mesh``."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor import zeros as sharded_zeros

    found = FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {}
    for name, stored in found.items():
        assert isinstance(stored, TensorStorageMetadata)
        size, dtype = stored.size, stored.properties.dtype
        if mesh is None or not size:
            tensors[name] = torch.zeros(size, dtype=dtype)
        else:
            tensors[name] = sharded_zeros(size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # it is meant
        load(tensors, checkpoint_id=folder, no_dist=mesh is None)
    return tensors
