"""Text encoders: prompts to embeddings, by umT5 as Wan uses it, by a table of words, or from a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from ..files.safetensors_file import Value, open_tensors, read_value
from .umt5 import TextEncoder, is_umt5, load_umt5
from .word_table import TinyText

# what people take for a text encoder, by parts of the names of its weights
_OTHERS = {
    "patch_embedding.weight": "a Wan transformer; give it as the model",
    "text_model.encoder.": "a CLIP text encoder",
    "self_attn.q_proj.weight": "a language model of another kind",
    "decoder.conv1.weight": "a VAE; give it as the VAE",
    "lora_": "a LoRA",
}


def load_text_encoder(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """Load a text encoder.

    Args:
        path: One of these:

            - A folder with ``text.json`` and ``text.safetensors``: a table of words, as the tiny world's training
              writes it.
            - umT5's encoder: Wan's own ``models_t5_umt5-xxl-enc-bf16.pth``, ComfyUI's ``umt5_xxl_*.safetensors``, also
              scaled fp8, or Hugging Face's folder. Its tokenizer is the tensor ``spiece_model`` in that
              file, or the file ``spiece.model`` in the same folder, where these distributions put it, too.
            - A file with one tensor, [rows, width] or [1, rows, width]: the embeddings for every prompt.
        device: Device of umT5.
        dtype: Of umT5.

    Returns:
        A function from a prompt to its embeddings, [1, rows, width] in float32.

    Raises:
        ValueError: The file is something else; the message says what.
        OSError: The file cannot be read.
    """
    path = Path(path)
    if path.is_dir() and (path / "text.json").exists():
        return TinyText(path / "text.json", path / "text.safetensors").encode
    tensors: dict[str, Value] = {}
    for file in _files(path):
        tensors |= open_tensors(file)[0]
    if is_umt5(tensors):
        return load_umt5(path, tensors, device, dtype)
    if len(tensors) == 1:
        embeddings = read_value(next(iter(tensors.values()))).float()
        if embeddings.ndim == 2:
            embeddings = embeddings.unsqueeze(0)
        if embeddings.ndim == 3:
            return lambda prompt: embeddings
    raise ValueError(
        f"{path} is neither umT5 (it has no 'shared.weight') nor one tensor of embeddings: {_what(tensors)}"
    )


def _files(path: Path) -> list[Path]:
    """The files of weights: the path itself, or what is in a folder."""
    if not path.is_dir():
        return [path]
    # Wan's folder also has its other networks, and Hugging Face's may have the same weights in both formats
    for pattern in ("models_t5_umt5*.pth", "*.safetensors", "pytorch_model*.bin"):
        if files := sorted(path.glob(pattern)):
            return files
    raise ValueError(
        f"{path} is a folder without a text encoder: expected text.json, models_t5_umt5-xxl-enc-bf16.pth or "
        "Hugging Face's model-....safetensors or pytorch_model-....bin in it"
    )


def _what(names: Iterable[str]) -> str:
    names = sorted(names)
    sample = ", ".join(names[:3]) or "nothing"
    kind = next((kind for part, kind in _OTHERS.items() if any(part in name for name in names)), None)
    return f"it has {sample} ..." if kind is None else f"it has {sample} ..., as {kind}"
