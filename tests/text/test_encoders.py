"""Prompts become the embeddings that umT5 gives, or those in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceTrainer
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from sf_core.text.encoders import load_text_encoder

WORDS = "a red circle and a blue square move slowly over the wide green field under a white sky while it rains "


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("spiece")
    (folder / "text").write_text("\n".join(WORDS.split() * 20))
    SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "spiece"), vocab_size=40, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return (folder / "spiece.model").read_bytes()


@pytest.fixture(scope="module")
def umt5() -> UMT5EncoderModel:
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=64, d_model=48, d_kv=64, d_ff=96, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return UMT5EncoderModel(config).eval()


def weights(model: UMT5EncoderModel) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}


def test_umt5_gives_what_transformers_gives(tmp_path: Path, umt5: UMT5EncoderModel, tokenizer: bytes) -> None:
    inside = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    save_file({**weights(umt5), "spiece_model": inside}, tmp_path / "inside.safetensors")
    save_file(weights(umt5), tmp_path / "beside.safetensors")
    (tmp_path / "spiece.model").write_bytes(tokenizer)
    from sentencepiece import SentencePieceProcessor

    ids = [*SentencePieceProcessor(model_proto=tokenizer).encode("a red  circle"), 1]
    with torch.no_grad():
        expected = umt5(torch.tensor([ids])).last_hidden_state
    for name in ("inside", "beside"):
        embeddings = load_text_encoder(tmp_path / f"{name}.safetensors")(" a red circle ")
        torch.testing.assert_close(embeddings, expected)


def test_a_file_of_embeddings_stands_for_its_prompt(tmp_path: Path) -> None:
    rows = torch.randn(7, 48)
    save_file({"prompt": rows}, tmp_path / "e.safetensors")
    assert torch.equal(load_text_encoder(tmp_path / "e.safetensors")("whatever"), rows[None])


def test_what_does_not_fit_is_named(tmp_path: Path, umt5: UMT5EncoderModel, tokenizer: bytes) -> None:
    save_file(weights(umt5), tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=r"has no tokenizer inside .*, and there is no .*spiece.model"):
        load_text_encoder(tmp_path / "t.safetensors")
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"neither umT5 .* nor one tensor of embeddings: it has a, b"):
        load_text_encoder(tmp_path / "x.safetensors")
    (tmp_path / "spiece.model").write_bytes(tokenizer)
    with pytest.raises(ValueError, match="tokens; Wan reads at most 512: shorten it"):
        load_text_encoder(tmp_path / "t.safetensors")(WORDS * 60)
