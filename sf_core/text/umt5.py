"""umT5 through `transformers`, from the files that people have: weights in any names, fp8 with scales, its tokenizer.

Needs the extra ``text`` (transformers, sentencepiece).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files.clean_text import clean_text
from ..files.safetensors_file import Value, read_value
from ..files.weights import Weight, with_scales

TextEncoder = Callable[[str], Tensor]  # prompt -> [1, rows, width]
MAX_ROWS = 512  # of embeddings; Wan reads no more
END_OF_TEXT = 1
_HEAD_WIDTH = 64  # of every umT5
_TOKENIZER = "spiece_model"  # a tensor of bytes
_TOKENIZER_FILES = ("spiece.model", "google/umt5-xxl/spiece.model", "../tokenizer/spiece.model")
_EMBEDDING = ("shared.weight", "token_embedding.weight", "encoder.embed_tokens.weight")  # each layout has one of them
_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"
_FROM_WAN = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^token_embedding\.", "shared."),
        (r"^norm\.", "encoder.final_layer_norm."),
        (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
        (r"^blocks\.(\d+)\.attn\.", r"encoder.block.\1.layer.0.SelfAttention."),
        (
            r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
            r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
        ),
        (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
        (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
        (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
        (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
    )
]  # Wan's own names, and Hugging Face's


def is_umt5(tensors: Mapping[str, Value]) -> bool:
    """Whether these may be the weights of umT5, in any names."""
    return any(name.endswith(_EMBEDDING) for name in tensors)


def load_umt5(path: Path, tensors: Mapping[str, Value], device: str | torch.device, dtype: torch.dtype) -> TextEncoder:
    """Load umT5's encoder.

    Args:
        path: The file or folder of the weights, where its tokenizer is looked for too.
        tensors: The weights in Hugging Face's names, which ComfyUI uses too, or in Wan's.
        device: Device of the weights.
        dtype: Of the weights.

    Raises:
        ValueError: The weights are not umT5's, or there is no tokenizer, or a package is missing.
    """
    try:
        from sentencepiece import SentencePieceProcessor
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as error:
        raise ValueError(f"umT5 needs transformers and sentencepiece ({error}): pip install '.[text]'") from error
    weights = _weights(path, {name: value for name, value in tensors.items() if name != _TOKENIZER})
    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**_sizes(path, weights)))
    _check(path, model, weights)
    tokenizer = SentencePieceProcessor(model_proto=_tokenizer_bytes(path, tensors))
    loaded = {name: weight.read(device, dtype) for name, weight in weights.items()}
    loaded["encoder.embed_tokens.weight"] = loaded["shared.weight"]
    model.load_state_dict(loaded, assign=True)
    model.eval().requires_grad_(False)

    def encode(prompt: str) -> Tensor:
        ids = [*tokenizer.encode(" ".join(clean_text(prompt).split())), END_OF_TEXT]
        if len(ids) > MAX_ROWS:
            raise ValueError(f"the prompt has {len(ids)} tokens; Wan reads at most {MAX_ROWS}: shorten it")
        with torch.no_grad():
            embeddings: Tensor = model(torch.tensor([ids], device=device)).last_hidden_state
        return embeddings.float()

    return encode


def _weights(path: Path, tensors: Mapping[str, Value]) -> dict[str, Weight]:
    """Return the encoder's weights in Hugging Face's names, with their scales."""
    prefix = min((name.removesuffix(end) for name in tensors for end in _EMBEDDING if name.endswith(end)), key=len)
    state: dict[str, Value] = {}
    for name, value in tensors.items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        for pattern, other in _FROM_WAN:
            name = pattern.sub(other, name)
        if not name.startswith(("decoder.", "lm_head.")) and name != "encoder.embed_tokens.weight":
            state[name] = value
    if "shared.weight" not in state:
        state["shared.weight"] = tensors[f"{prefix}encoder.embed_tokens.weight"]
    try:
        return with_scales(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _sizes(path: Path, weights: Mapping[str, Weight]) -> dict[str, Any]:
    """Read the sizes of the model off its weights. Raises ValueError if they are not there."""
    first = "encoder.block.0.layer"
    landmarks = ("shared.weight", f"{first}.1.DenseReluDense.wi_0.weight", f"{first}.0.SelfAttention.q.weight")
    if absent := [name for name in landmarks if name not in weights or len(weights[name].shape) != 2]:
        raise ValueError(f"{path} is not umT5's encoder: it has no {absent[0]}")
    layers = {int(match[1]) for name in weights if (match := re.match(r"encoder\.block\.(\d{1,6})\.", name))}
    biases = [name for name in weights if name.endswith(_BIAS)]
    if biases == [f"encoder.block.0.{_BIAS}"] and len(layers) > 1:  # T5's layers share the first one's
        raise ValueError(
            f"{path} is T5 (as t5xxl of other models), not umT5, which Wan reads: take umt5_xxl or models_t5_umt5-xxl"
        )
    if max(layers) >= len(layers):
        absent_layer = next(layer for layer in range(max(layers)) if layer not in layers)
        raise ValueError(f"{path} is not all of umT5: it has layers up to {max(layers)}, but no {absent_layer}")
    rows, width = weights["shared.weight"].shape
    return {
        "vocab_size": rows,
        "d_model": width,
        "d_kv": _HEAD_WIDTH,
        "d_ff": weights[landmarks[1]].shape[0],
        "num_layers": len(layers),
        "num_heads": weights[landmarks[2]].shape[0] // _HEAD_WIDTH,
        "feed_forward_proj": "gated-gelu",
    }


def _check(path: Path, model: Any, weights: Mapping[str, Weight]) -> None:
    """Raise ValueError unless ``weights`` are those of ``model``, one for one."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    expected.pop("encoder.embed_tokens.weight", None)  # the same tensor as shared.weight
    faults = [f"lacks {name}" for name in sorted(expected.keys() - weights.keys())]
    faults += [f"has {name}, which umT5 has not" for name in sorted(weights.keys() - expected.keys())]
    faults += [
        f"has {name} of the shape {list(weights[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise ValueError(f"{path} is not the whole encoder of umT5: it {faults[0]}{more}")


def _tokenizer_bytes(path: Path, tensors: Mapping[str, Value]) -> bytes:
    if _TOKENIZER in tensors:
        return bytes(read_value(tensors[_TOKENIZER]).to(torch.uint8).numpy().tobytes())
    folder = path if path.is_dir() else path.parent
    for name in _TOKENIZER_FILES:
        if (folder / name).exists():
            return (folder / name).read_bytes()
    raise ValueError(
        f"{path} has no tokenizer inside (a tensor 'spiece_model'), and there is no {folder / _TOKENIZER_FILES[0]}: "
        "put the file of that name from google/umt5-xxl there"
    )
