"""Training on several processes: PyTorch's FSDP2 and its distributed checkpoints, under ``torchrun``.

Each rank holds a shard of every weight, gradient, EMA and optimizer moment, and computes its micro-batches of an
update. Weights are gathered block by block when they are needed, and freed again. Gradients are averaged as soon as a
block's gradients are complete. Random numbers depend on the number of the micro-batch alone, so the update equals that
of a single process.

Experimental: tested with several CPU processes, never run on several GPUs.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ...files.safetensors_file import open_tensors
from ...model.wan import CausalWan
from .networks import save_network
from .process_group import Group, Network
from .run_log import NullRunLog, RunLog
from .shards import SHARD_FOLDERS, SHARDS, full_tensor, local_shard, read_shards

# blocks return keys and values as views; they are never changed in place
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


class Processes(Group):
    """All processes of a ``torchrun``; each makes one of these after it has joined the others (`joined`).

    All ranks must share one file system, and call the methods in the same order.

    Args:
        device: This rank's device.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._mesh = init_device_mesh(torch.device(device).type, (self.size,))

    # Networks -------------------------------------------------------------------------------------------------------

    def shard(self, network: Network) -> Network:
        """Shard the network's weights with FSDP2; a `CausalWan` block by block."""
        sharded: nn.Module = ShardedWan.of(network) if isinstance(network, CausalWan) else network
        if isinstance(sharded, ShardedWan):
            for block in sharded.blocks:
                fully_shard(block, mesh=self._mesh)
        fully_shard(sharded, mesh=self._mesh, reshard_after_forward=True)
        return sharded  # type: ignore[return-value]

    @torch.no_grad()
    def frozen_copy(self, model: CausalWan) -> CausalWan:
        """Copy a sharded model, without gradient and sharded alike."""
        with torch.device("meta"):
            bare = CausalWan(model.arch)
        bare.copy_settings(model)
        other = self.shard(bare).to_empty(device=model.device)
        for parameter, original in zip(other.parameters(), model.parameters(), strict=True):
            local_shard(parameter).copy_(local_shard(original))
        return other.eval().requires_grad_(False)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of parameters that are not sharded; FSDP2 has averaged the others."""
        for parameter in parameters:
            if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of scalars over ranks, with one all-reduce."""
        if not values:
            return {}
        stacked = torch.stack([value.detach().float() for value in values.values()])
        dist.all_reduce(stacked)
        return dict(zip(values, stacked / self.size, strict=True))

    def distribute_like(self, value: Tensor, like: Tensor) -> Tensor:
        """Return ``value`` as a DTensor if ``like`` is one, else in full."""
        if not isinstance(like, DTensor):
            return full_tensor(value)
        if isinstance(value, DTensor):
            return value
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    # Agreeing -------------------------------------------------------------------------------------------------------

    def any_rank(self, flags: Sequence[bool]) -> list[bool]:
        """Return the element-wise OR over ranks (all-reduce)."""
        maxima = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(maxima, dist.ReduceOp.MAX)
        return [bool(flag) for flag in maxima]

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.any_rank([False])

    # Files ----------------------------------------------------------------------------------------------------------

    def run_log(self, folder: Path, steps: int, done: int) -> RunLog:
        """Open the run's log in rank 0, and one that writes nothing in the others."""
        return super().run_log(folder, steps, done) if self.is_rank0 else NullRunLog()

    def write(self, path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Gather the weights and write them in rank 0, atomically."""
        if self.is_rank0:
            save_network(path, weights, metadata)
        else:
            for tensor in weights.values():
                full_tensor(tensor)
        self.barrier()

    def write_state(self, path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write the shards into the unused shard folder, then replace the state file that names the folder."""
        before = open_tensors(path)[1].get(SHARDS) if path.exists() else None
        folder = path.with_name(SHARD_FOLDERS[before == SHARD_FOLDERS[0]])
        self.barrier()
        if tensors:
            if self.is_rank0:
                shutil.rmtree(folder, ignore_errors=True)
            self.barrier()
            save(dict(tensors), checkpoint_id=folder)
            metadata = {**metadata, SHARDS: folder.name}
        if self.is_rank0:
            save_network(path, {}, metadata)  # from here on, the new folder is the state
            for other in SHARD_FOLDERS:
                if other != metadata.get(SHARDS):
                    shutil.rmtree(path.with_name(other), ignore_errors=True)
        self.barrier()

    def read_state(self, path: Path) -> dict[str, Tensor]:
        """Read a state, each rank its shards if several processes wrote it."""
        metadata = open_tensors(path)[1]
        if SHARDS not in metadata:
            return super().read_state(path)
        return read_shards(path.with_name(metadata[SHARDS]), self._mesh)


class ShardedWan(CausalWan):
    """A `CausalWan` whose methods all run inside ``forward``, around which FSDP gathers the weights."""

    @staticmethod
    def of(model: CausalWan) -> ShardedWan:
        """Make a model that shares the weight tensors of ``model``."""
        with torch.device("meta"):
            sharded = ShardedWan(model.arch)
        sharded.load_state_dict(model.state_dict(), assign=True)
        for parameter, original in zip(sharded.parameters(), model.parameters(), strict=True):
            parameter.requires_grad_(original.requires_grad)
        sharded.copy_settings(model)
        sharded.gradient_checkpointing = model.gradient_checkpointing
        return sharded.train(model.training)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """See `CausalWan.predict`."""
        return self.predict(*args, **kwargs)

    def forward(self, compute: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Call ``compute``, with the weights gathered."""
        return compute(*args)

    def enter(self, compute: Callable[..., Any], *args: Any) -> Any:
        """Call ``compute`` inside this module's forward."""
        return super().__call__(compute, *args)
