"""ComfyUI's memory management: what is loaded, making room, and running out.

Hides the differences between ComfyUI 0.3.75 and 0.33.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterable
from typing import Any

import comfy.model_management as mm
import torch
from torch import Tensor, nn

from ...sf_core.memory_ledger import SPARE, DeviceMemory
from ...sf_core.out_of_memory import is_out_of_memory as out_of_memory_in_torch
from .idle_memory import IdleMemory


class Loaded:
    """A MODEL as it is loaded, and what is loaded beside it; equal while both stay as they are."""

    def __init__(self, patcher: Any) -> None:
        # entries of plain memory (`idle_memory`) come and go without a change to any model
        entries = [entry for entry in mm.current_loaded_models if not isinstance(entry.model, IdleMemory)]
        self._entries = entries  # held, so that no other entry takes the identity of one
        model = patcher.model
        facts = (patcher.patches_uuid, model.current_weight_patches_uuid, model.model_loaded_weight_memory)
        self._key = ([id(entry) for entry in entries], facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loaded) and self._key == other._key

    __hash__ = None  # type: ignore[assignment]


def loaded(patcher: Any) -> Loaded | None:
    """Return how a MODEL is loaded. None: it is not, or another clone of it is."""
    if patcher.model.current_weight_patches_uuid != patcher.patches_uuid:
        return None
    return Loaded(patcher) if any(entry.model is patcher for entry in mm.current_loaded_models) else None


def load_models(patchers: Iterable[Any], nbytes: int) -> None:
    """Load the models, with ``nbytes`` left free. Only in the thread that runs the graph."""
    mm.load_models_gpu(list(patchers), memory_required=nbytes)


def loaded_bytes(model: nn.Module) -> int:
    """Return the bytes of the weights in the dtypes that they have on the device.

    Under DynamicVRAM the parameters keep the dtypes of the file; the modules know those that they are cast to.
    """
    nbytes = 0
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            dtype = getattr(module, f"{name}_comfy_model_dtype", None)
            plain = type(parameter.data) is Tensor  # a quantised tensor is loaded as it is
            nbytes += parameter.numel() * dtype.itemsize if dtype is not None and plain else parameter.nbytes
    return nbytes


def attention_is_fused() -> bool:
    """Whether attention needs no memory for its scores."""
    return bool(mm.xformers_enabled() or mm.pytorch_attention_flash_attention())


def device_memory(device: torch.device, patcher: Any) -> DeviceMemory:
    """Return the memory of ``device``, and what ComfyUI does if the weights of ``patcher`` do not fit."""
    total = 0 if mm.directml_enabled else int(mm.get_total_memory(device))  # DirectML does not tell
    if device.type in ("cpu", "mps"):
        return DeviceMemory(device.type, total)
    dynamic = is_dynamic(patcher)
    offloads = dynamic or mm.vram_state not in (mm.VRAMState.HIGH_VRAM, mm.VRAMState.SHARED)
    share = 0.0 if dynamic else float(getattr(mm, "MIN_WEIGHT_MEMORY_RATIO", 0.0))
    # --reserve-vram may ask for more: ComfyUI leaves it to other programs, and offloads weights for it
    ram = int(mm.get_total_memory(torch.device("cpu")))
    return DeviceMemory(device.type, total, offloads, share, max(SPARE, int(mm.extra_reserved_memory())), ram)


def is_dynamic(patcher: Any) -> bool:
    """Whether ComfyUI evicts the weights of a MODEL page by page (DynamicVRAM)."""
    return hasattr(patcher, "is_dynamic") and bool(patcher.is_dynamic())


def vae_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that ComfyUI would load Wan's VAE in."""
    dtype: torch.dtype = mm.vae_dtype(device, [torch.bfloat16, torch.float16, torch.float32])
    return dtype


def free_memory(device: torch.device) -> int:
    """Return the free memory of ``device`` in bytes."""
    return int(mm.get_free_memory(device))


def make_room(nbytes: int, device: torch.device, last: Any = None) -> None:
    """Unload models until ``nbytes`` are free. Only in the thread that runs the graph.

    Args:
        nbytes: Bytes to be free.
        device: Where.
        last: An entry that is unloaded only if weights are not enough. With it, weights that DynamicVRAM evicts by
            itself stay.
    """
    if last is None:
        mm.free_memory(nbytes, device)
        return
    others = [entry for entry in mm.current_loaded_models if entry.model is not None and entry.device == device]
    evictable = sum(int(entry.model.loaded_size()) for entry in others if is_dynamic(entry.model))
    mm.free_memory(nbytes - evictable, device, keep_loaded=[entry for entry in others if entry.model is last])
    if free_memory(device) + evictable < nbytes:
        mm.free_memory(nbytes, device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that the device ran out of memory, be it a GPU or the CPU."""
    if out_of_memory_in_torch(error):
        return True
    core = getattr(mm, "is_oom", None)  # in newer versions
    known = mm.OOM_EXCEPTION is not Exception  # its stand-in where torch has none
    return known and bool(core(error) if core is not None else isinstance(error, mm.OOM_EXCEPTION))


def free_all(error: BaseException) -> None:
    """Free the memory that the frames of ``error`` hold, and every loaded model, at once.

    A traceback keeps the frames that it passed through, and these keep their tensors: nothing is free before.
    """
    seen: set[int] = set()
    chain: BaseException | None = error
    while chain is not None and id(chain) not in seen:
        seen.add(id(chain))
        traceback.clear_frames(chain.__traceback__)
        chain.__traceback__ = None
        chain = chain.__cause__ or chain.__context__
    gc.collect()
    mm.unload_all_models()
    mm.soft_empty_cache()


def out_of_memory(error: BaseException, message: str) -> BaseException:
    """Return an error with ``message`` in place of ``error``: torch's own if that was, which ComfyUI treats apart."""
    return torch.OutOfMemoryError(message) if isinstance(error, torch.OutOfMemoryError) else MemoryError(message)
