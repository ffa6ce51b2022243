"""Fingerprints of weights with their patches.

Sessions, KV caches and stored chunks are told apart by them. Patches count by content where that is possible, so that
a session finds its model again after the same LoRA or merge was loaded anew, also in a restarted server.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor

from ...sf_core.hashing import digest, sampled_values, weights_fingerprint

_PREFIX = "diffusion_model."


def patched_fingerprint(patcher: Any) -> str:
    """Return the fingerprint of the transformer's own weights, with a digest of the patches to them."""
    base = _base_fingerprint(patcher)
    parts = [repr(part) for part in _patches(patcher)]
    return base if not parts else f"{base}+{digest('|'.join(parts).encode()).hex()[:12]}"


def _base_fingerprint(patcher: Any) -> str:
    model = patcher.model
    fingerprint = getattr(model, "_sf_fingerprint", None)
    if fingerprint is None:
        fingerprint = model._sf_fingerprint = weights_fingerprint(_own_weights(patcher))
    return str(fingerprint)


def _own_weights(patcher: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights without patches; ComfyUI backs up what it patches in place."""
    for name, parameter in patcher.model.diffusion_model.named_parameters():
        backup = patcher.backup.get(_PREFIX + name)
        value = parameter.data if backup is None else backup[0]
        yield name, value.as_subclass(Tensor)


def _patches(patcher: Any) -> Iterator[Any]:
    for name in sorted(patcher.patches):
        yield name, [_content(part) for part in patcher.patches[name]]
    for name, patch in sorted(patcher.object_patches.items()):
        if name.startswith(_PREFIX):
            yield name, token(patch)
    for name, wrappers in sorted(patcher.weight_wrapper_patches.items()):
        yield name, [token(wrapper) for wrapper in wrappers]
    if patcher.forced_hooks is not None:
        yield token(patcher.forced_hooks)


def _content(part: Any) -> Any:
    """Describe a patch, or a part of it, by content, not by identity."""
    if isinstance(part, Tensor):
        return list(part.shape), str(part.dtype), sampled_values(part).tolist()
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, (list, tuple)):
        return [_content(item) for item in part]
    if isinstance(part, dict):
        return {key: _content(value) for key, value in sorted(part.items())}
    if isinstance(part, MethodType):  # merging nodes pass a layer's conversion of its weight
        return type(part.__self__).__qualname__, _content(part.__func__)
    if isinstance(part, FunctionType) and not part.__closure__ and not part.__defaults__:
        code = part.__code__
        return part.__module__, part.__qualname__, digest(code.co_code, repr(code.co_names).encode()).hex()
    weights = getattr(part, "weights", None)  # of ComfyUI's weight adapters
    if weights is not None:
        return type(part).__name__, _content(weights)
    return token(part)


_serials: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_counter = itertools.count()


def token(thing: object) -> str:
    """Return a name for an object that no other object gets while the server runs."""
    try:
        if thing not in _serials:
            _serials[thing] = next(_counter)
        return str(_serials[thing])
    except TypeError:  # no weak references to it: a new name each time
        return f"new {next(_counter)}"
