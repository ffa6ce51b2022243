"""Training on many processes: PyTorch's FSDP2 and its distributed checkpoints, under ``torchrun``.

Each process keeps a part of every weight, gradient, average and optimizer's moment, and takes its part of the batches
of an update. Weights are gathered block by block, as they are needed, and let go of again; gradients are averaged as
each block's are complete. What is drawn depends on the number of the batch alone, so the update is that of one process.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
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
from ...model.forward import LayerAttention
from ...model.kv_cache import KeysValues
from ...model.wan import Block, CausalWan
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
        if isinstance(network, CausalWan):
            # in place, as `fully_shard` itself does
            network.__class__ = _ShardedWan  # type: ignore[assignment]
            for block in network.blocks:
                block.__class__ = _ShardedBlock
                fully_shard(block, mesh=self._mesh)
        fully_shard(network, mesh=self._mesh, reshard_after_forward=True)
        return network

    @torch.no_grad()
    def twin(self, model: CausalWan) -> CausalWan:
        with torch.device("meta"):
            other = CausalWan(model.arch)
        self.shard(other).to_empty(device=model.device)
        for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
            own(mine).copy_(own(theirs))
        other.attention, other.metadata = model.attention, model.metadata
        other.rollout_config, other.latent_size = model.rollout_config, model.latent_size
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


class _ShardedBlock(Block):
    """Its weights are there while ``compute`` runs: FSDP gathers them before a forward, and in backward."""

    def forward(self, compute: Any, *args: Any) -> Any:
        return compute(*args)


class _ShardedWan(CausalWan):
    """A `CausalWan` that goes through ``forward`` of itself and its blocks wherever their weights are used."""

    _inside = False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.predict(*args, **kwargs)

    def forward(self, compute: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return compute(*args, **kwargs)

    def _pass(self, compute: Any, *args: Any, **kwargs: Any) -> Any:
        """What one method calls of another is inside its forward already."""
        if self._inside:
            return compute(*args, **kwargs)
        self._inside = True
        try:
            return super().__call__(compute, *args, **kwargs)
        finally:
            self._inside = False

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._pass(super().predict, *args, **kwargs)

    def features(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        return self._pass(super().features, *args, **kwargs)

    def flow_with(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._pass(super().flow_with, *args, **kwargs)

    def write_with(self, *args: Any, **kwargs: Any) -> None:
        self._pass(super().write_with, *args, **kwargs)

    def embed_time(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self._pass(super().embed_time, *args, **kwargs)

    def text_keys_values(self, *args: Any, **kwargs: Any) -> list[KeysValues]:
        return self._pass(super().text_keys_values, *args, **kwargs)

    def _text_pair(self, block: Any, context: Tensor) -> KeysValues:
        return block(partial(super()._text_pair, block), context)

    def _block(
        self,
        block: Any,
        layer: int,
        x: Tensor,
        modulations: Tensor,
        rotations: Tensor,
        text: KeysValues,
        attend: LayerAttention,
        keys_only: bool,
    ) -> Tensor:
        compute = partial(super()._block, block, layer, attend=attend, keys_only=keys_only)
        return block(compute, x, modulations, rotations, text)
