"""The processes that train together, as the trainer and the stages see them.

`Group` is a single process. `fsdp.Processes` is several; only that module uses `torch.distributed` collectives.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from torch import Tensor
from torch.nn import Module, Parameter

from ...files.safetensors_file import open_tensors, read_value
from ...model.wan import CausalWan
from ..recipe import Recipe
from .lora_adapters import AdaptedWan
from .networks import frozen_copy, save_network
from .run_log import RunLog
from .shards import SHARD_FOLDERS, SHARDS, read_shards

Network = TypeVar("Network", bound=Module)


class Group:
    """A single process: it computes every micro-batch, and its tensors are not sharded."""

    rank = 0
    size = 1

    @property
    def is_rank0(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise ValueError if this many processes cannot run the recipe or share its micro-batches equally."""
        if recipe.lora is not None and self.size > 1:
            raise ValueError("adapters ([lora] in the recipe) are trained by one process; start it without torchrun")
        for number, stage in enumerate(recipe.stages, 1):
            if stage.accumulate % self.size:
                raise ValueError(
                    f"stage {number} ({stage.kind}) gathers accumulate = {stage.accumulate} batches an update, which "
                    f"{self.size} processes cannot share equally: make it a multiple of {self.size}, and batch "
                    "smaller, so that batch * accumulate stays what it is"
                )

    def share(self, count: int) -> range:
        """Return this rank's indices of ``count`` items, such as the micro-batches of an update."""
        return range(self.rank, count, self.size)

    # Networks -------------------------------------------------------------------------------------------------------

    def shard(self, network: Network) -> Network:
        """Shard the network's weights over the processes, in place, and return it."""
        return network

    def frozen_copy(self, model: CausalWan) -> CausalWan:
        """Copy a model, without gradient and sharded alike."""
        return model.frozen_copy() if isinstance(model, AdaptedWan) else frozen_copy(model)

    def average_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Average over ranks the gradients of parameters that are not sharded (all-reduce)."""

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of scalars over ranks (all-reduce)."""
        return dict(values)

    def distribute_like(self, value: Tensor, like: Tensor) -> Tensor:
        """Return a tensor of a saved state, sharded as ``like``."""
        return value

    # Agreeing -------------------------------------------------------------------------------------------------------

    def any_rank(self, flags: Sequence[bool]) -> list[bool]:
        """Return the element-wise OR over ranks (all-reduce)."""
        return list(flags)

    def barrier(self) -> None:
        """Wait for all ranks."""

    @contextmanager
    def rank0_first(self) -> Iterator[None]:
        """Run the body in rank 0 first, then in the other ranks, which find the files that it wrote."""
        if not self.is_rank0:
            self.barrier()
        yield
        if self.is_rank0:
            self.barrier()

    # Files ----------------------------------------------------------------------------------------------------------

    def run_log(self, folder: Path, steps: int, done: int) -> RunLog:
        """Open this process's log of a run; see `RunLog`."""
        return RunLog(folder, steps, done)

    def write(self, path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write a safetensors file with full tensors, atomically."""
        save_network(path, weights, metadata)

    def write_state(self, path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write a state for `read_state`, atomically: until it is complete, the one before stays readable."""
        save_network(path, tensors, metadata)
        for folder in SHARD_FOLDERS:
            shutil.rmtree(path.with_name(folder), ignore_errors=True)

    def read_state(self, path: Path) -> dict[str, Tensor]:
        """Read a state that one process or several wrote."""
        stored, metadata = open_tensors(path)
        if SHARDS in metadata:
            return read_shards(path.with_name(metadata[SHARDS]))
        return {name: read_value(value) for name, value in stored.items()}
