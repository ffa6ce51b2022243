"""Sequence parallelism: one video on several processes, as in DeepSpeed-Ulysses (arXiv 2309.14509).

Outside self-attention, a process holds its part of the chunk's tokens, with all heads. Inside, it holds its part of
the heads, over all tokens, and so its part of the cache: one all-to-all before attention, another one after it.
Cross-attention needs none, since every process holds all keys and values of the text. All processes hold the same
latents. Tested with gloo on CPUs.

Only the command line under ``torchrun`` imports this module; no other part of inference uses `torch.distributed`.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ..config import RolloutConfig
from .cache_shape import CacheShape
from .forward import BlockPass, LayerAttention
from .layer_view import LayerView
from .wan import CausalWan

PATIENCE = timedelta(hours=12)  # wait for other processes; torchrun ends all of them if one dies


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the process group of this ``torchrun``.

    Yields:
        The device of this process, such as ``cuda:1`` for ``cuda``.

    Raises:
        ValueError: The machine has fewer devices than processes.
    """
    kind, local = torch.device(device).type, int(os.environ["LOCAL_RANK"])
    if kind != "cpu":
        there = torch.get_device_module(kind).device_count()
        if local >= there:
            raise ValueError(f"process {local} of this machine has no device: {there} of {kind}. Start as many")
        device = f"{kind}:{local}"
        torch.get_device_module(kind).set_device(local)
    backend = "gloo" if kind == "cpu" else f"cpu:gloo,{kind}:{dist.get_default_backend_for_device(kind)}"
    store, rank, size = _store()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _store() -> tuple[Store, int, int]:
    """A part of torchrun's store that no earlier start wrote to, this process's rank, and the number of processes.

    The store survives a restart, with addresses of dead processes (pytorch/pytorch#135712), and each machine counts
    restarts for itself. So rank 0 lists the processes until each of them has found itself in the list.
    """
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    me, listed = uuid.uuid4().hex, list[str]()
    store.set(f"here/{rank}", me)
    while True:
        if rank == 0:
            listed = [store.get(f"here/{other}").decode() for other in range(size)]
            store.set("listed", " ".join(listed))
            if store.check([f"{listed[0]}/seen-by/{other}" for other in listed[1:]]):
                break
        else:
            listed = store.get("listed").decode().split()
            if me in listed:
                store.set(f"{listed[0]}/seen-by/{me}", "")
                break
        time.sleep(0.02)
    return PrefixStore(listed[0], store), rank, size


class HeadParallelWan(CausalWan):
    """A `CausalWan` whose passes over a cache are divided among all processes, which must run the same passes.

    A pass without a cache runs on each process alone.
    """

    @staticmethod
    def of(model: CausalWan) -> HeadParallelWan:
        """``model`` with shared weights. Raises ValueError if the processes cannot share its heads equally."""
        heads, size = model.arch.num_heads, dist.get_world_size()
        if heads % size:
            fits = [str(n) for n in range(1, heads + 1) if heads % n == 0]
            raise ValueError(
                f"{heads} attention heads cannot be shared equally by {size} processes: start {', '.join(fits)} of them"
            )
        with torch.device("meta"):
            shared = HeadParallelWan(model.arch)
        own = {name: value for name, value in model.state_dict().items() if not name.startswith("memory.")}
        shared.load_state_dict(own, assign=True)
        shared.copy_settings(model)
        if model.memory is not None:
            shared.with_memory(HeadParallelWan.of(model.memory))
        return shared.eval().requires_grad_(False)

    def cache_shape(self, config: RolloutConfig, latent_size: tuple[int, int], batch: int) -> CacheShape:
        """The cache of this process. The text, which it holds completely, counts as more rows of its heads."""
        if config.schedule == "rolling":
            raise ValueError("schedule='rolling' passes frames of several timesteps together: start one process")
        whole, size = super().cache_shape(config, latent_size, batch), dist.get_world_size()
        for frames in {config.chunk_frames, config.frames_of_block(0)}:
            if frames * whole.frame_tokens % size:
                raise ValueError(
                    f"a chunk of {frames} latent frames has {frames * whole.frame_tokens} tokens, which {size} "
                    "processes cannot share equally: start fewer, or take another size of picture"
                )
        return replace(whole, heads=whole.heads // size, text_len=whole.text_len * size)

    def attend_to_cache(self, views: Sequence[LayerView]) -> LayerAttention:
        """Self-attention over this process's heads and the tokens of all processes."""
        return _ByHeads(super().attend_to_cache(views))

    def run_blocks(self, x: Tensor, given: BlockPass) -> Tensor:
        """All blocks over this process's part of the tokens; a pass without a cache is not divided."""
        if not isinstance(given.attend, _ByHeads):
            return super().run_blocks(x, given)
        if given.modulations.shape[1] != 1:  # one modulation serves any part of a pass's tokens; several do not
            raise ValueError(
                "frames of one pass have several timesteps (schedule='rolling', or a joint recache of given frames), "
                "which several processes do not share: start one process"
            )
        part = super().run_blocks(_part(x, 1), replace(given, rotations=_part(given.rotations, 0)))
        return part if given.keys_only else _all_tokens(part)


class _ByHeads:
    """Attention for this process's tokens, computed from its heads over the tokens of all processes."""

    def __init__(self, attend: LayerAttention) -> None:
        self._attend = attend

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not q.shape[1]:  # a pass for keys and values only
            k, v = _to_heads(torch.stack([k, v]))
            self._attend(layer, k[:, :0], k, v)
            return q
        return _to_tokens(self._attend(layer, *_to_heads(torch.stack([q, k, v]))))


def _part(x: Tensor, dim: int) -> Tensor:
    return x.chunk(dist.get_world_size(), dim)[dist.get_rank()]


def _to_heads(x: Tensor) -> Tensor:
    """[n, B, own tokens, heads, D] -> [n, B, tokens, own heads, D]."""
    sent = x.unflatten(3, (dist.get_world_size(), -1)).movedim(3, 0)
    return _exchanged(sent).movedim(0, 2).flatten(2, 3)


def _to_tokens(x: Tensor) -> Tensor:
    """[B, tokens, own heads, D] -> [B, own tokens, heads, D]."""
    sent = x.unflatten(1, (dist.get_world_size(), -1)).movedim(1, 0)
    return _exchanged(sent).movedim(0, 2).flatten(2, 3)


def _exchanged(sent: Tensor) -> Tensor:
    """All-to-all: row i of the first dimension goes to process i, and comes from it."""
    sent = sent.contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent)
    return received


def _all_tokens(part: Tensor) -> Tensor:
    """[B, own tokens, dim] -> [B, tokens, dim]."""
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts, dim=1)
