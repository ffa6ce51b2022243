"""Sharded tensors (DTensor), and distributed checkpoints, which a single process can read too.

`torch.distributed` is imported where it is used, because a training in one process does not need it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# metadata key of a state file that several processes wrote: the folder next to it that has the tensors
SHARDS = "sf.shards"
SHARD_FOLDERS = ("state-a", "state-b")  # used in turn, so that the current one is never overwritten


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's shard of a DTensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a DTensor from all ranks; any other tensor as it is. Collective: all ranks must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def read_shards(folder: Path, mesh: DeviceMesh | None = None) -> dict[str, Tensor]:
    """Read the tensors of a distributed checkpoint: in full, or sharded equally over ``mesh``."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor import zeros as sharded_zeros

    contents = FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {}
    for name, stored in contents.items():
        assert isinstance(stored, TensorStorageMetadata)
        size, dtype = stored.size, stored.properties.dtype
        if mesh is None or not size:
            tensors[name] = torch.zeros(size, dtype=dtype)
        else:
            tensors[name] = sharded_zeros(size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # intended
        load(tensors, checkpoint_id=folder, no_dist=mesh is None)
    return tensors
