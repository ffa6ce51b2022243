"""Memory that a model's sessions keep between runs, as an entry in ComfyUI's list of loaded models.

ComfyUI unloads an entry when another model needs the memory. Under DynamicVRAM it leaves models of that kind alone,
since their weights are evicted page by page; caches are plain tensors, so their entry is of the plain kind and goes.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn


class Releasable(Protocol):
    """Memory that an entry stands for."""

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""

    def release(self) -> None:
        """Free everything."""


class SelfForcingCache(nn.Module):
    """The model of an entry, without weights. ComfyUI prints its name."""


class IdleMemory(ModelPatcher):
    """The entry of one `Releasable`. It lives as long as its owner, which holds it."""

    def __init__(self, owner: Releasable, device: torch.device) -> None:
        super().__init__(SelfForcingCache(), device, torch.device("cpu"))
        self._owner = weakref.ref(owner)

    def offer(self) -> None:
        """Enter the list."""
        if self.loaded_size() and not any(entry.model is self for entry in mm.current_loaded_models):
            # not load_models_gpu: it would make room for what is there already, and unload weights for it
            entry = mm.LoadedModel(self)
            entry.real_model = weakref.ref(self.model)
            entry.model_finalizer = weakref.finalize(self.model, mm.cleanup_models)
            entry.model_finalizer.atexit = False
            entry.currently_used = False
            mm.current_loaded_models.append(entry)

    def withdraw(self) -> None:
        """Leave the list."""
        for entry in [entry for entry in mm.current_loaded_models if entry.model is self]:
            entry.model_finalizer.detach()
            mm.current_loaded_models[:] = [other for other in mm.current_loaded_models if other is not entry]

    # What ComfyUI asks of an entry ------------------------------------------------------------------------------------

    def is_dynamic(self) -> bool:
        """Say that the memory is not evicted page by page."""
        return False

    def model_size(self) -> int:
        """Return the bytes held."""
        return self.loaded_size()

    def loaded_size(self) -> int:
        """Return the bytes held."""
        owner = self._owner()
        return 0 if owner is None else owner.nbytes

    def partially_unload(self, *args: Any, **kwargs: Any) -> int:
        """Free nothing: a part of a cache is of no use. ComfyUI then detaches the whole."""
        return 0

    def partially_load(self, *args: Any, **kwargs: Any) -> int:
        """Load nothing: caches are made where they are used."""
        return 0

    def detach(self, unpatch_all: bool = True) -> Any:
        """Free everything."""
        owner = self._owner()
        if unpatch_all and owner is not None:
            owner.release()
        return self.model
