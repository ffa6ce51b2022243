"""Text encoders: umT5 through `transformers`, as Wan uses it, a table of words, or embeddings from a file.

umT5 needs the extra ``text`` (transformers, sentencepiece).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..files.checkpoint import read_safetensors
from .word_table import TinyText

TextEncoder = Callable[[str], Tensor]  # prompt -> [1, rows, width]
MAX_ROWS = 512  # of embeddings; Wan reads no more
END_OF_TEXT = 1
_HEAD_WIDTH = 64  # of every umT5


def load_text_encoder(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """Load a text encoder.

    Args:
        path: One of these:

            - A folder with ``text.json`` and ``text.safetensors``: a table of words, as the tiny world's training
              writes it.
            - umT5's encoder as safetensors in Hugging Face's names. Its tokenizer is the tensor ``spiece_model`` in
              that file, or the file ``spiece.model`` in the same folder.
            - A file with one tensor, [rows, width] or [1, rows, width]: the embeddings for every prompt.
        device: Device of umT5.
        dtype: Of umT5.

    Returns:
        A function from a prompt to its embeddings, [1, rows, width] in float32.

    Raises:
        ValueError: The file is something else.
    """
    path = Path(path)
    if path.is_dir() and (path / "text.json").exists():
        return TinyText(path / "text.json", path / "text.safetensors").encode
    state, _ = read_safetensors(path)
    if "shared.weight" in state:
        return _umt5(path, state, device, dtype)
    if len(state) == 1:
        embeddings = next(iter(state.values())).float()
        if embeddings.ndim == 2:
            embeddings = embeddings.unsqueeze(0)
        if embeddings.ndim == 3:
            return lambda prompt: embeddings
    names = ", ".join(sorted(state)[:3])
    raise ValueError(
        f"{path} is neither umT5 (it has no 'shared.weight') nor one tensor of embeddings: it has {names} ..."
    )


def _umt5(path: Path, state: Mapping[str, Tensor], device: str | torch.device, dtype: torch.dtype) -> TextEncoder:
    try:
        from sentencepiece import SentencePieceProcessor
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as error:
        raise ValueError(f"umT5 needs transformers and sentencepiece ({error}): pip install '.[text]'") from error
    weights = {name: tensor for name, tensor in state.items() if name.startswith(("shared.", "encoder."))}
    first = "encoder.block.0.layer"
    width = weights["shared.weight"].shape[1]
    config = UMT5Config(
        vocab_size=weights["shared.weight"].shape[0],
        d_model=width,
        d_kv=_HEAD_WIDTH,
        d_ff=weights[f"{first}.1.DenseReluDense.wi_0.weight"].shape[0],
        num_layers=1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.block.")),
        num_heads=weights[f"{first}.0.SelfAttention.q.weight"].shape[0] // _HEAD_WIDTH,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    weights = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    model.load_state_dict(weights, assign=True)
    model.eval().requires_grad_(False)
    tokenizer = SentencePieceProcessor(model_proto=_tokenizer_bytes(path, state))

    def encode(prompt: str) -> Tensor:
        ids = [*tokenizer.encode(" ".join(prompt.split())), END_OF_TEXT]
        if len(ids) > MAX_ROWS:
            raise ValueError(f"the prompt has {len(ids)} tokens; Wan reads at most {MAX_ROWS}: shorten it")
        with torch.no_grad():
            embeddings: Tensor = model(torch.tensor([ids], device=device)).last_hidden_state
        return embeddings.float()

    return encode


def _tokenizer_bytes(path: Path, state: Mapping[str, Tensor]) -> bytes:
    if "spiece_model" in state:
        return bytes(state["spiece_model"].to(torch.uint8).numpy().tobytes())
    file = path.with_name("spiece.model")
    if file.exists():
        return file.read_bytes()
    raise ValueError(f"{path} has no tokenizer inside (a tensor 'spiece_model'), and there is no {file}")
