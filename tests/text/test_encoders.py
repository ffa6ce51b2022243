"""Prompts become the embeddings that umT5 gives, or those in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceTrainer
from torch import Tensor

from sf_core.text.encoders import load_text_encoder

if TYPE_CHECKING:
    from transformers import UMT5EncoderModel

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
    from transformers import UMT5Config, UMT5EncoderModel  # takes seconds, of every worker if at the top

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


def in_wans_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in Wan's own models_t5_umt5-xxl-enc-bf16.pth."""
    parts = {
        "shared.": "token_embedding.", "encoder.final_layer_norm.": "norm.", "encoder.block.": "blocks.",
        "layer.0.layer_norm.": "norm1.", "layer.1.layer_norm.": "norm2.",
        "layer.0.SelfAttention.relative_attention_bias.": "pos_embedding.embedding.",
        "layer.0.SelfAttention.": "attn.", "layer.1.DenseReluDense.wi_0.": "ffn.gate.0.",
        "layer.1.DenseReluDense.wi_1.": "ffn.fc1.", "layer.1.DenseReluDense.wo.": "ffn.fc2.",
    }  # fmt: skip
    renamed = {}
    for name, tensor in state.items():
        for hugging_face, wan in parts.items():
            name = name.replace(hugging_face, wan)
        renamed[name] = tensor
    return renamed


def in_scaled_fp8(state: dict[str, Tensor], scale_name: str) -> dict[str, Tensor]:
    """As ComfyUI's umt5_xxl_fp8_e4m3fn_scaled: matrices in fp8, each with a scale, and a marker."""
    scaled = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in state.items():
        if tensor.ndim < 2 or "shared" in name:
            scaled[name] = tensor
            continue
        scale = tensor.abs().max() / 448
        scaled[name] = (tensor / scale).to(torch.float8_e4m3fn)
        scaled[f"{name.removesuffix('.weight')}.{scale_name}"] = scale
    return scaled


@pytest.mark.parametrize(
    "kind", ["scale_weight", "weight_scale", "wan.pth", "wan", "prefixed", "folder", "bins", "wans"]
)
def test_umt5_as_people_have_it_is_read(kind: str, tmp_path: Path, umt5: UMT5EncoderModel, tokenizer: bytes) -> None:
    state, path = weights(umt5), tmp_path / "t.safetensors"
    save_file({**state, "spiece_model": torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)}, path)
    expected = load_text_encoder(path)("a red circle")
    beside = tmp_path / "spiece.model"
    match kind:
        case "scale_weight" | "weight_scale":
            save_file(in_scaled_fp8(state, kind), path)
        case "wan.pth":
            path = tmp_path / "models_t5_umt5-xxl-enc-bf16.pth"
            torch.save(in_wans_names(state), path)
        case "wan":
            save_file(in_wans_names(state), path)
        case "prefixed":
            save_file({f"text_encoders.umt5xxl.transformer.{name}": value for name, value in state.items()}, path)
        case "folder" | "bins":  # Hugging Face's, in two parts, its tokenizer in a folder next to it
            path, beside = tmp_path / "text_encoder", tmp_path / "tokenizer" / "spiece.model"
            path.mkdir()
            beside.parent.mkdir()
            names = sorted(state)
            for number, part in enumerate((names[:7], names[7:]), 1):
                parts = {name: state[name] for name in part}
                if kind == "bins":  # as older ones
                    torch.save(parts, path / f"pytorch_model-0000{number}-of-00002.bin")
                else:
                    save_file(parts, path / f"model-0000{number}-of-00002.safetensors")
        case "wans":
            path, beside = tmp_path / "wan", tmp_path / "wan" / "google" / "umt5-xxl" / "spiece.model"
            beside.parent.mkdir(parents=True)
            torch.save(in_wans_names(state), path / "models_t5_umt5-xxl-enc-bf16.pth")
            save_file({"x": torch.zeros(1)}, path / "diffusion_pytorch_model.safetensors")
    beside.write_bytes(tokenizer)
    found = load_text_encoder(path)("a red circle")
    if "scale" in kind:
        assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).min() > 0.99
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {n: v for n, v in s.items() if ".block.0." not in n or "q.weight" in n or "wi_0" in n}, "lacks"),
        (lambda s: {n: v for n, v in s.items() if ".block.0." not in n}, "it has no encoder.block.0"),
        (lambda s: {n: v for n, v in s.items() if "block.1.layer.0.SelfAttention.relative" not in n}, "is T5"),
        (lambda s: {n.replace("block.1", "block.900000"): v for n, v in s.items()}, "layers up to 900000, but no 1"),
        (lambda s: {**s, "encoder.block.0.x": s["encoder.final_layer_norm.weight"].clone()}, "which umT5 has not"),
        (lambda s: {**s, "shared.weight": s["shared.weight"][:, :40].contiguous()}, "of the shape"),
        (lambda s: {"shared.weight": s["shared.weight"]}, "it has no encoder.block.0"),
        (lambda s: {"a": torch.zeros(1), "blocks.0.patch_embedding.weight": torch.zeros(1)}, "as a Wan transformer"),
        (lambda s: {"text_model.encoder.x": torch.zeros(1), "b": torch.zeros(1)}, "as a CLIP text encoder"),
    ],
)
def test_what_is_not_umt5_is_named_for_what_it_is(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    words: str,
    tmp_path: Path,
    umt5: UMT5EncoderModel,
    tokenizer: bytes,
) -> None:
    (tmp_path / "spiece.model").write_bytes(tokenizer)
    save_file(change(weights(umt5)), tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=r"t\.safetensors") as caught:
        load_text_encoder(tmp_path / "t.safetensors")
    assert words in str(caught.value)


def test_an_empty_folder_is_no_text_encoder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder without a text encoder: expected text\.json, models_t5"):
        load_text_encoder(tmp_path)


def test_a_prompt_cut_in_an_emoji_is_encoded(tmp_path: Path, umt5: UMT5EncoderModel, tokenizer: bytes) -> None:
    (tmp_path / "spiece.model").write_bytes(tokenizer)
    save_file(weights(umt5), tmp_path / "t.safetensors")
    encode = load_text_encoder(tmp_path / "t.safetensors")
    assert torch.isfinite(encode("a red circle \ud83d")).all()
    assert torch.equal(encode("\ufeffa red circle"), encode("a red circle"))


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
