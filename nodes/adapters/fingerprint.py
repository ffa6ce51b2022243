"""Names for weights with their patches: what sessions, caches and the journal are told apart by."""

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
    """That of the transformer's own weights, as `sf_core` names them, and a digest of what is patched into them."""
    base = _base_fingerprint(patcher)
    parts = [repr(part) for part in _patches(patcher)]
    return base if not parts else f"{base}+{digest('|'.join(parts).encode()).hex()[:12]}"


def _base_fingerprint(patcher: Any) -> str:
    model = patcher.model
    known = getattr(model, "_sf_fingerprint", None)
    if known is None:
        known = model._sf_fingerprint = weights_fingerprint(_own_weights(patcher))
    return str(known)


def _own_weights(patcher: Any) -> Iterator[tuple[str, Tensor]]:
    """Without patches: where ComfyUI has patched a parameter in place, it keeps what was there before."""
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
    """A patch, or part of one, by what it does rather than by who it is."""
    if isinstance(part, Tensor):
        return list(part.shape), str(part.dtype), sampled_values(part).tolist()
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, (list, tuple)):
        return [_content(item) for item in part]
    if isinstance(part, dict):
        return {key: _content(value) for key, value in sorted(part.items())}
    if isinstance(part, MethodType):  # a merge's conversion of a layer's weight
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
    """Names an object for as long as the server runs; never the same for two, even if one is gone."""
    try:
        if thing not in _serials:
            _serials[thing] = next(_counter)
        return str(_serials[thing])
    except TypeError:  # cannot be remembered: then it is another one each time
        return f"new {next(_counter)}"
