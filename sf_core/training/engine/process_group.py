"""The processes that train together, as the trainer and its stages see them: here the one that is alone.

`parallel.Processes` is the same for several; it alone knows of `torch.distributed`.
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
from .networks import save_network, twin
from .run_log import Report
from .shards import SHARD_FOLDERS, SHARDS, read_shards

Network = TypeVar("Network", bound=Module)


def own(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that several hold together, the same memory; any other as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class Group:
    """One process, whose work and tensors are all the work and whole tensors."""

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    def check(self, recipe: Recipe) -> None:
        """Raises ValueError if the recipe is not for several processes, or an update cannot be dealt out equally."""
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
        """Which of ``count`` things to do, such as the batches of an update, are this process's."""
        return range(self.rank, count, self.size)

    # Networks -------------------------------------------------------------------------------------------------------

    def shard(self, network: Network) -> Network:
        """The network itself, of whose weights each process keeps a part from now on."""
        return network

    def twin(self, model: CausalWan) -> CausalWan:
        """Another model with the same weights, kept as those are, which need no gradient."""
        return model.twin() if isinstance(model, AdaptedWan) else twin(model)

    def average_gradients(self, parameters: Iterable[Parameter]) -> None:
        """The mean over processes, of gradients that are not averaged already."""

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means of scalars over processes."""
        return dict(values)

    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        """A value of a saved state, held as ``like`` is."""
        return value

    # Agreeing -------------------------------------------------------------------------------------------------------

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Which flags are up in any process."""
        return list(flags)

    def wait(self) -> None:
        """Until all processes are here."""

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process does this, then the others, who find what it left on the disk."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    # Files ----------------------------------------------------------------------------------------------------------

    def report(self, folder: Path, steps: int, done: int) -> Report:
        """Where this process tells of a run; see `Report`."""
        return Report(folder, steps, done)

    def write(self, path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
        """A safetensors file with whole tensors, whole or not at all."""
        save_network(path, weights, facts)

    def write_state(self, path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
        """What `read_state` gives again; whole or not at all, and until then what was there before."""
        save_network(path, tensors, facts)
        for folder in SHARD_FOLDERS:
            shutil.rmtree(path.with_name(folder), ignore_errors=True)

    def read_state(self, path: Path) -> dict[str, Tensor]:
        """By whomever it was written, one process or several."""
        stored, facts = open_tensors(path)
        if SHARDS in facts:
            return read_shards(path.with_name(facts[SHARDS]))
        return {name: read_value(value) for name, value in stored.items()}
