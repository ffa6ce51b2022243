"""Identity of weights: a name, a description that recognises them in another number format, a digest of every bit.

Three questions have three answers. *What is this model called?* A name that people read, from 16 values a tensor
(`weights_name`). *Are these the weights that a session was made with?* A description (`describe_weights`): every bit
counts between equal number formats, and rounding is allowed between float32, bf16 and fp16. *Would a chunk come out the
same?* A digest of every bit (`contents_digest`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ..hashing import digest, sampled_values

MEASURED = 2**16  # values of each tensor, evenly spread
# Rounding to bf16 moves a projection by some 0.0016 of the tensor's norm, rounding to fp16 by an eighth of that
TENSOR_TOLERANCE = 0.016  # ten times that: of one tensor
MEAN_TOLERANCE = 0.004  # root of the mean square over all tensors
SMALLEST = 6e-8  # the step of fp16's smallest numbers
_PLAIN = {"float64", "float32", "bfloat16", "float16"}


def describe_weights(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Describe weights for `same_weights`.

    Returns:
        ``formats``: the dtypes; ``contents``: digest of every bit; ``measures``: base64 of little-endian float32
        [tensors, 3], ordered by name: number of values, norm and projection on a fixed pattern of signs.
    """
    listed = sorted(tensors)
    rows = [(float(tensor.numel()), *_norm_and_projection(tensor)) for _, tensor in listed]
    measures = torch.tensor(rows, dtype=torch.float32).numpy().astype("<f4").tobytes()
    return {
        "formats": " ".join(sorted({str(tensor.dtype).removeprefix("torch.") for _, tensor in listed})),
        "contents": contents_digest(listed).hex(),
        "measures": base64.b64encode(measures).decode(),
    }


def same_weights(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two descriptions are of the same weights, be they stored in float32, bf16 or fp16."""
    if one.get("contents") == other.get("contents"):
        return True
    if one.get("formats") == other.get("formats") and set(str(one.get("formats")).split()) <= _PLAIN:
        return False
    try:
        a, b = (_parsed(str(weights.get("measures"))) for weights in (one, other))
    except (ValueError, binascii.Error):
        return False
    if a.shape != b.shape or not torch.equal(a[:, 0], b[:, 0]):
        return False
    floor = SMALLEST * a[:, 0].clamp(max=MEASURED).sqrt()
    differences = (a[:, 1:] - b[:, 1:]).abs().amax(1)
    relative = (differences - floor).clamp(min=0) / torch.maximum(a[:, 1], b[:, 1]).clamp(min=1e-30)
    return bool((relative <= TENSOR_TOLERANCE).all()) and float(relative.square().mean().sqrt()) <= MEAN_TOLERANCE


def _parsed(measures: str) -> Tensor:
    data = bytearray(base64.b64decode(measures, validate=True))
    if not data or len(data) % 12:
        raise ValueError("not the measures of weights")
    return torch.frombuffer(data, dtype=torch.float32).reshape(-1, 3).double()


def _norm_and_projection(tensor: Tensor) -> tuple[float, float]:
    flat = tensor.detach().reshape(-1)
    values = flat[:: max(1, -(-len(flat) // MEASURED))].to("cpu", torch.float32)
    return float(values.norm()), float(values @ _signs(len(values)))


@lru_cache(maxsize=32)
def _signs(count: int) -> Tensor:
    """``count`` numbers 1 or -1 without a pattern: a hash of their indices."""
    mixed = torch.arange(count, dtype=torch.int64, device="cpu")
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B + 1) & 0xFFFFFFFF
    return (1 - 2 * ((mixed >> 16) & 1)).float()


def contents_digest(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """Hash names, shapes, dtypes and every bit of tensors, at the speed of memory; waits for their devices."""
    return digest(*(part for name, tensor in sorted(tensors) for part in _bits(name, tensor)))


def _bits(name: str, tensor: Tensor) -> Iterator[bytes]:
    """A description of a tensor, and sums of its bits along rows and along columns of 64-bit words."""
    yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.device.type not in ("cpu", "cuda"):  # others may lack sums of 64-bit numbers
        data = data.cpu()
    whole = len(data) // 8 * 8
    words = data[:whole].clone().view(torch.int64) if data.storage_offset() % 8 else data[:whole].view(torch.int64)
    width = 1 << (max(1, len(words)).bit_length() // 2)
    square = words[: len(words) // width * width].view(-1, width)
    for sums in (square.sum(0), square.sum(1), words[len(words) // width * width :]):
        yield sums.cpu().numpy().tobytes()
    yield data[whole:].cpu().numpy().tobytes()


def weights_name(samples: Mapping[str, tuple[Iterable[int], Tensor]]) -> str:
    """Return ``<width>x<layers>-<hash>``, the name of weights.

    Args:
        samples: By the tensor's name its shape and its `sampled_values`, which are rounded to bf16 here.
    """
    lines, width, layers = [], 0, set()
    for name, (shape, values) in sorted(samples.items()):
        sizes = list(shape)
        lines.append(f"{name} {sizes} {values.to(torch.bfloat16).float().tolist()}")
        width = sizes[0] if name == "patch_embedding.bias" else width
        layers |= {name.split(".")[1]} if name.startswith("blocks.") else set()
    return f"{width}x{len(layers)}-{digest('|'.join(lines).encode()).hex()[:12]}"


def weights_fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the name of weights, see `weights_name`."""
    return weights_name({name: (tensor.shape, sampled_values(tensor)) for name, tensor in tensors})
