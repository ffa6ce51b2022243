"""Training on many processes: PyTorch's FSDP2 and its distributed checkpoints, under ``torchrun``.

Each process keeps a part of every weight, gradient, average and optimizer's moment, and takes its part of the batches
of an update. Weights are gathered block by block, as they are needed, and let go of again; gradients are averaged as
each block's are complete. What is drawn depends on the number of the batch alone, so the update is that of one process.
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
from .networks import save_network, whole
from .process_group import Group, Network, own
from .run_log import Report, Silent
from .shards import SHARD_FOLDERS, SHARDS, read_shards

# keys and values leave a block as views; nobody writes to them in place
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


class Processes(Group):
    """All processes of a ``torchrun``, which have joined (`joined`); each makes one of these.

    device: where this one computes. All of them see one folder, and do all that is said here in the same order.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._mesh = init_device_mesh(torch.device(device).type, (self.size,))

    # Networks -------------------------------------------------------------------------------------------------------

    def shard(self, network: Network) -> Network:
        sharded: nn.Module = ShardedWan.of(network) if isinstance(network, CausalWan) else network
        if isinstance(sharded, ShardedWan):
            for block in sharded.blocks:
                fully_shard(block, mesh=self._mesh)
        fully_shard(sharded, mesh=self._mesh, reshard_after_forward=True)
        return sharded  # type: ignore[return-value]

    @torch.no_grad()
    def twin(self, model: CausalWan) -> CausalWan:
        with torch.device("meta"):
            bare = CausalWan(model.arch)
        bare.copy_settings(model)
        other = self.shard(bare).to_empty(device=model.device)
        for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
            own(mine).copy_(own(theirs))
        return other.eval().requires_grad_(False)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not values:
            return {}
        together = torch.stack([value.detach().float() for value in values.values()])
        dist.all_reduce(together)
        return dict(zip(values, together / self.size, strict=True))

    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        if not isinstance(like, DTensor):
            return whole(value)
        if isinstance(value, DTensor):
            return value
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    # Agreeing -------------------------------------------------------------------------------------------------------

    def any(self, flags: Sequence[bool]) -> list[bool]:
        up = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(up, dist.ReduceOp.MAX)
        return [bool(flag) for flag in up]

    def wait(self) -> None:
        self.any([False])

    # Files ----------------------------------------------------------------------------------------------------------

    def report(self, folder: Path, steps: int, done: int) -> Report:
        return super().report(folder, steps, done) if self.first else Silent()

    def write(self, path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
        if self.first:
            save_network(path, weights, facts)
        else:
            for tensor in weights.values():
                whole(tensor)
        self.wait()

    def write_state(self, path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
        before = open_tensors(path)[1].get(SHARDS) if path.exists() else None
        folder = path.with_name(SHARD_FOLDERS[before == SHARD_FOLDERS[0]])
        self.wait()
        if tensors:
            if self.first:
                shutil.rmtree(folder, ignore_errors=True)
            self.wait()
            save(dict(tensors), checkpoint_id=folder)
            facts = {**facts, SHARDS: folder.name}
        if self.first:
            save_network(path, {}, facts)  # replaces the file that says which folder counts
            for other in SHARD_FOLDERS:
                if other != facts.get(SHARDS):
                    shutil.rmtree(path.with_name(other), ignore_errors=True)
        self.wait()

    def read_state(self, path: Path) -> dict[str, Tensor]:
        facts = open_tensors(path)[1]
        return read_shards(path.with_name(facts[SHARDS]), self._mesh) if SHARDS in facts else super().read_state(path)


class ShardedWan(CausalWan):
    """A `CausalWan` whose weights FSDP gathers around ``forward``; so all uses of its own weights go through it."""

    @staticmethod
    def of(model: CausalWan) -> ShardedWan:
        """``model``, its weights shared, ready to be sharded."""
        with torch.device("meta"):
            sharded = ShardedWan(model.arch)
        sharded.load_state_dict(model.state_dict(), assign=True)
        for mine, theirs in zip(sharded.parameters(), model.parameters(), strict=True):
            mine.requires_grad_(theirs.requires_grad)
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
