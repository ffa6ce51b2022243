"""Identity of a MODEL: the name and description of its weights with their patches, and a digest of its exact state.

Sessions carry name and description, chunk and KV caches the digest. All are the same before and after ComfyUI loads the
weights: newer versions cast some of them in place, and keep most in the file's number format.
Patches count by content where that is possible, so that a session finds its model again after the same LoRA or merge
was loaded anew, also in a restarted server.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import comfy.sd
import torch
from torch import Tensor

from ...sf_core.files.checkpoint import open_source
from ...sf_core.files.weights import memory_weights, transformer_weights
from ...sf_core.hashing import digest, sampled_values
from ...sf_core.model.identity import contents_digest, describe_weights, weights_name
from ...sf_core.model.two_sets import memory_name
from .second_set import published_name

_PREFIX = "diffusion_model."
_HALF = torch.float16  # the dtype that ComfyUI prefers for Wan on a GPU
Samples = dict[str, tuple[tuple[int, ...], Tensor]]  # by name: shape, and values as of `sampled_values`


class Weights:
    """The weights of a model without patches. What is derived is computed when it is first asked for."""

    def __init__(self, patcher: Any) -> None:
        self._net = patcher.model.diffusion_model
        config = getattr(patcher.model, "model_config", None)
        self._fast = repr(sorted(getattr(config, "optimizations", {}).items()))  # fp8 arithmetic, where a device has it
        self._backup = patcher.backup  # all clones share it: what ComfyUI patches or casts, as it was
        self._source = source_of(patcher)

    def _parameters(self) -> Iterator[tuple[str, Tensor, torch.dtype | None, bool]]:
        """Yield name, stored values, dtype that ComfyUI gives them, and whether their module has modules inside.

        The parameters of such modules (``modulation``) are the ones that ComfyUI casts in place, without a backup.
        """
        for path, module in self._net.named_modules():
            has_parts = next(module.children(), None) is not None
            for part, parameter in module.named_parameters(recurse=False):
                name = f"{path}.{part}" if path else part
                backup = self._backup.get(_PREFIX + name)
                value = parameter.data if backup is None else backup[0]
                dtype = getattr(module, f"{part}_comfy_model_dtype", None)
                plain = type(value) in (Tensor, torch.nn.Parameter) and value.dtype.is_floating_point
                yield published_name(name), value, dtype if plain else None, has_parts

    @cached_property
    def _samples(self) -> Samples:
        plain = ((name, _plain(value)) for name, value, _, _ in self._parameters())
        return {name: (tuple(tensor.shape), sampled_values(tensor)) for name, tensor in plain}

    def _rounded(self, samples: Samples, only_cast_in_place: bool, to: torch.dtype | None = None) -> Samples:
        """Round samples ``to`` a dtype, by default the one that ComfyUI gives each of them."""
        rounded = dict(samples)
        for name, _, dtype, in_place in self._parameters():
            kind = to or dtype
            if kind is not None and (in_place or not only_cast_in_place):
                shape, values = samples[name]
                rounded[name] = shape, values.to(kind).float()
        return rounded

    @cached_property
    def name(self) -> str:
        """Name: of the file that the weights come from if it is known, else of the weights as ComfyUI uses them."""
        used = self._rounded(self._samples, only_cast_in_place=False)
        return weights_name(_samples_of_file(self._source, used) or used)

    @cached_property
    def names(self) -> frozenset[str]:
        """All names that these weights have had: earlier versions took whatever ComfyUI had made of the values."""
        used = self._rounded(self._samples, only_cast_in_place=False)
        known = [self._samples, *([stored] if (stored := _samples_of_file(self._source, used)) else [])]
        variants = [*known, used, self._rounded(self._samples, only_cast_in_place=True)]
        variants += [self._rounded(samples, only, _HALF) for samples in known for only in (True, False)]
        return frozenset({self.name, *(weights_name(samples) for samples in variants)})

    def _stored(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all tensors as they are stored, those of quantised weights one by one."""
        for name, value, dtype, in_place in self._parameters():
            value = value.to(dtype) if in_place and dtype is not None else value
            if hasattr(value, "__tensor_flatten__"):
                yield from ((f"{name}.{part}", getattr(value, part)) for part in value.__tensor_flatten__()[0])
            else:
                yield name, value.as_subclass(Tensor)

    @cached_property
    def contents(self) -> bytes:
        """Digest of every bit, and of what says how ComfyUI multiplies: the kinds of layers, fp8 fast or not.

        Name and description are known with it, and so before a chunk is made: threads that save or list the session
        do not read weights while they are in use.
        """
        _ = self.name
        kinds = sorted({f"{type(m).__module__} {type(m).__qualname__}" for m in self._net.modules()})
        return digest(bytes.fromhex(self.description["contents"]), repr(kinds).encode(), self._fast.encode())

    @cached_property
    def description(self) -> dict[str, str]:
        """Description by which saved sessions recognise the weights."""
        return describe_weights(self._stored())


_weights: weakref.WeakKeyDictionary[Any, Weights] = weakref.WeakKeyDictionary()
_sources: weakref.WeakKeyDictionary[Any, Path] = weakref.WeakKeyDictionary()


def weights_of(patcher: Any) -> Weights:
    """Return the identity of the weights that all clones of a MODEL share."""
    if patcher.model not in _weights:
        _weights[patcher.model] = Weights(patcher)
    return _weights[patcher.model]


def remember_source(patcher: Any, path: Path) -> None:
    """Remember the file that the weights of a MODEL come from."""
    _sources[patcher.model] = path


def source_of(patcher: Any) -> Path | None:
    """Return the file that the weights of a MODEL come from; None if nobody said."""
    loader = getattr(patcher, "cached_patcher_init", None)
    if patcher.model not in _sources and loader and loader[0] is comfy.sd.load_diffusion_model:
        _sources[patcher.model] = Path(loader[1][0])
    return _sources.get(patcher.model)


def _samples_of_file(path: Path | None, used: Samples) -> Samples | None:
    """Return the samples in a file; None if it cannot be read, or its values do not round to those in ``used``."""
    if path is None:
        return None
    try:
        tensors = open_source(path)[0]
        memory = memory_weights(tensors) or {}
        stored = transformer_weights(tensors) | {memory_name(name): weight for name, weight in memory.items()}
        if stored.keys() != used.keys():
            return None
        samples = {name: (weight.shape, weight.sampled_values()) for name, weight in stored.items()}
    except (ValueError, OSError):
        return None
    for name, (shape, values) in samples.items():
        if shape != used[name][0] or not torch.allclose(values, used[name][1], rtol=2**-7.9, atol=1e-7):
            return None  # quantised, or changed since
    return samples


def _plain(value: Tensor) -> Tensor:
    return value.dequantize() if hasattr(value, "__tensor_flatten__") else value.as_subclass(Tensor)


# Patches ----------------------------------------------------------------------------------------------------------


def named_patches(patcher: Any) -> str:
    """Return what the patches add to the name of the weights; nothing without patches."""
    parts = [repr(part) for part in _patches(patcher, _sampled)]
    return "+" + digest("|".join(parts).encode()).hex()[:12] if parts else ""


def exact_patches(patcher: Any) -> bytes:
    """Return a digest of every bit of the patches; nothing without patches."""
    parts = [repr(part) for part in _patches(patcher, _whole)]
    return digest("|".join(parts).encode()) if parts else b""


def _sampled(tensor: Tensor) -> Any:
    return list(tensor.shape), str(tensor.dtype), sampled_values(tensor).tolist()


def _whole(tensor: Tensor) -> Any:
    return contents_digest([("", tensor.as_subclass(Tensor))]).hex()


def _patches(patcher: Any, described: Callable[[Tensor], Any]) -> Iterator[Any]:
    for name in sorted(patcher.patches):
        yield name, [_content(part, described) for part in patcher.patches[name]]
    for name, patch in sorted(patcher.object_patches.items()):
        if name.startswith(_PREFIX):
            yield name, token(patch)
    for name, wrappers in sorted(patcher.weight_wrapper_patches.items()):
        yield name, [token(wrapper) for wrapper in wrappers]
    if patcher.forced_hooks is not None:
        yield token(patcher.forced_hooks)


def _content(part: Any, described: Callable[[Tensor], Any]) -> Any:
    """Describe a patch, or a part of it, by content, not by identity."""
    if isinstance(part, Tensor):
        return described(part)
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, (list, tuple)):
        return [_content(item, described) for item in part]
    if isinstance(part, Mapping):
        return {key: _content(value, described) for key, value in sorted(part.items())}
    if isinstance(part, MethodType):  # merging nodes pass a layer's conversion of its weight
        return type(part.__self__).__qualname__, _content(part.__func__, described)
    if isinstance(part, FunctionType) and not part.__closure__ and not part.__defaults__:
        code = part.__code__
        return part.__module__, part.__qualname__, digest(code.co_code, repr(code.co_names).encode()).hex()
    weights = getattr(part, "weights", None)  # of ComfyUI's weight adapters
    if weights is not None:
        return type(part).__name__, _content(weights, described)
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
