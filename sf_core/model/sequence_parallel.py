"""One video on several processes, each with a part of the attention heads: sequence parallelism as in DeepSpeed-Ulysses
(arXiv 2309.14509).

Between attentions a process has its part of the chunk's tokens, all heads wide. In self-attention it has its part of
the heads over all tokens, and so of the cache: one all-to-all goes there, another one back. Cross-attention needs none;
keys and values of the text are whole everywhere. What every process comes to hold of the video is the same.

Only the command line under ``torchrun`` imports this; nothing else in inference knows of `torch.distributed`.
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
from .forward import LayerAttention, Look
from .kv_cache import CacheShape, KeysValues
from .wan import CausalWan

PATIENCE = timedelta(hours=12)  # that a process waits for the others: torchrun ends them all if one is gone


@contextmanager
def joined(device: str) -> Iterator[str]:
    """With the other processes of this ``torchrun``, each on a device of its own -> which one: ``cuda:1`` for ``cuda``.

    Raises ValueError if there are fewer of them than processes on this machine.
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
    """A part of torchrun's store that no process of an earlier start wrote to; this one's rank, and how many there are.

    The store outlives a restart, with the addresses of processes that are gone (pytorch/pytorch#135712), and each
    machine counts restarts for itself. So the first process lists who is there, until all have found themselves listed.
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
    """A `CausalWan` whose passes over a cache are shared by all processes, which must make the same ones.

    Passes without a cache each process makes by itself.
    """

    @staticmethod
    def of(model: CausalWan) -> HeadParallelWan:
        """``model``, its weights shared. Raises ValueError if its heads cannot be dealt out equally."""
        heads, size = model.arch.num_heads, dist.get_world_size()
        if heads % size:
            fits = [str(n) for n in range(1, heads + 1) if heads % n == 0]
            raise ValueError(
                f"{heads} attention heads cannot be shared equally by {size} processes: start {', '.join(fits)} of them"
            )
        with torch.device("meta"):
            shared = HeadParallelWan(model.arch)
        shared.load_state_dict(model.state_dict(), assign=True)
        shared.attention, shared.metadata = model.attention, model.metadata
        shared.rollout_config, shared.latent_size = model.rollout_config, model.latent_size
        return shared.eval().requires_grad_(False)

    def cache_shape(self, config: RolloutConfig, latent_size: tuple[int, int], batch: int) -> CacheShape:
        """This process's part. The text, of which it has all, counts as so many rows of its part of the heads."""
        whole, size = super().cache_shape(config, latent_size, batch), dist.get_world_size()
        for frames in {config.chunk_frames, config.frames_of_block(0)}:
            if frames * whole.frame_tokens % size:
                raise ValueError(
                    f"a chunk of {frames} latent frames has {frames * whole.frame_tokens} tokens, which {size} "
                    "processes cannot share equally: start fewer, or take another size of picture"
                )
        return replace(whole, heads=whole.heads // size, text_len=whole.text_len * size)

    def _over(self, views: Sequence[KeysValues]) -> LayerAttention:
        return _ByHeads(super()._over(views))

    def _blocks(
        self,
        x: Tensor,
        modulations: Tensor,
        rotations: Tensor,
        text: Sequence[KeysValues],
        attend: LayerAttention,
        keys_only: bool = False,
        look: Look = lambda layer, x: True,
    ) -> Tensor:
        if not isinstance(attend, _ByHeads):
            return super()._blocks(x, modulations, rotations, text, attend, keys_only, look)
        # over a cache there is one timestep a chunk, so that one modulation does for any part of its tokens
        own = super()._blocks(_part(x, 1), modulations, _part(rotations, 0), text, attend, keys_only, look)
        return own if keys_only else _all_tokens(own)


class _ByHeads:
    """Attention for queries, keys and values of this process's tokens: made of its heads, over everyone's tokens."""

    def __init__(self, attend: LayerAttention) -> None:
        self._attend = attend

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not q.shape[1]:  # only the keys and values count
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
    """Row i of the first dimension goes to process i, and is what came from it."""
    sent = sent.contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent)
    return received


def _all_tokens(part: Tensor) -> Tensor:
    """[B, own tokens, dim] -> [B, tokens, dim]."""
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts, dim=1)
