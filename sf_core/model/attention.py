"""Attention: one function over several backends.

Tensors are [B, tokens, heads, head_dim]. There is never a mask: causality follows from the contents of the cache, or
from the slices of keys that a query attends to, so every fast kernel can be used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # (q, k, v) -> out, shaped like q


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own attention: every device, every dtype."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def matmul(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two matrix products and a softmax, for training on the CPU. Chosen only by name.

    With gradients and short sequences it is faster than `sdpa` there (a step of the tiny teacher takes 0.63 of the
    time), but it keeps all attention weights in memory.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (weights.softmax(-1).to(v.dtype) @ v).transpose(1, 2)


def flash3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention 3 (package ``flash_attn_interface``): Hopper GPUs, half precision."""
    from flash_attn_interface import flash_attn_func

    out = flash_attn_func(q, k, v)
    return out[0] if isinstance(out, tuple) else out  # its early releases also return the log-sum-exp


def flash2(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention 2 (package ``flash_attn``): NVIDIA GPUs from Ampere on, half precision; on Hopper only by name."""
    from flash_attn import flash_attn_func

    return flash_attn_func(q, k, v)


def sage(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SageAttention (package ``sageattention``): 8-bit keys and queries, so not exact. Chosen only by name."""
    from sageattention import sageattn

    return sageattn(q, k, v, tensor_layout="NHD", is_causal=False)


BACKENDS: dict[str, Attention] = {"sdpa": sdpa, "matmul": matmul, "flash3": flash3, "flash2": flash2, "sage": sage}
_PACKAGES = {"flash3": "flash_attn_interface", "flash2": "flash_attn", "sage": "sageattention"}
AUTO_ORDER = ("flash3", "flash2", "sdpa")


@lru_cache
def is_installed(name: str) -> bool:
    """Whether the package of a backend can be imported."""
    package = _PACKAGES.get(name)
    if package is None:
        return name in BACKENDS
    try:
        importlib.import_module(package)
    except (ImportError, OSError):  # OSError: built for another CUDA, its library does not load
        return False
    return True


def _suits(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    if name == "sdpa":
        return True
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return prefers_cudnn(device, dtype) == (name == "flash3")


def prefers_cudnn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether cuDNN's attention, which `sdpa` takes there, is 1.7 times as fast as FlashAttention 2: on Hopper GPUs."""
    is_half = dtype in (torch.float16, torch.bfloat16)
    return is_half and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def choose_attention(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Resolve the name of a backend: ``auto`` is the first of AUTO_ORDER that runs on the device.

    Raises:
        ValueError: An unknown name, or a backend whose package is not installed.
    """
    if name == "auto":
        return next(n for n in AUTO_ORDER if _suits(n, device, dtype) and is_installed(n))
    if name not in BACKENDS:
        raise ValueError(f"unknown attention backend {name!r}; expected auto, {', '.join(BACKENDS)} or a function")
    if not is_installed(name):
        raise ValueError(
            f"attention backend {name!r} needs the package {_PACKAGES[name]}, which does not import here; "
            "install it or choose auto"
        )
    return name
