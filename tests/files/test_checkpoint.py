"""Loading: sizes are read off the weights, what is not a Wan model is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import sf_core
from sf_core.cli.info import describe
from tests.helpers import PARITY, random_model

STATE = dict(random_model(layers=3, dim=48, heads=4).state_dict())


def test_the_architecture_is_read_off_the_weights() -> None:
    arch = sf_core.load_model(STATE, num_heads=4, text_len=6).arch
    assert (arch.dim, arch.ffn_dim, arch.num_layers, arch.text_dim, arch.freq_dim) == (48, 96, 3, 8, 16)
    assert (arch.in_dim, arch.out_dim, arch.patch_size, arch.head_dim) == (4, 4, (1, 2, 2), 12)


def test_metadata_says_what_shapes_cannot(tmp_path: Path) -> None:
    facts = {"sf.num_heads": "4", "sf.text_len": "6", "sf.latent_size": "[4, 6]", "sf.rollout": '{"window_frames": 9}'}
    save_file(STATE, tmp_path / "m.safetensors", metadata=facts)
    model = sf_core.load_model(tmp_path / "m.safetensors")
    assert (model.arch.num_heads, model.arch.text_len, model.latent_size) == (4, 6, (4, 6))
    assert model.rollout_config == sf_core.RolloutConfig(window_frames=9)
    session = sf_core.Session.start(model, torch.ones(1, 2, 8))
    assert (session.config, session.latent_size) == (model.rollout_config, (4, 6))
    assert "48, 3, 4" in describe(tmp_path / "m.safetensors")


def test_real_heads_are_128_wide_and_their_texts_512_long() -> None:
    state = dict(random_model(layers=1, dim=256, heads=2).state_dict())
    arch = sf_core.load_model(state).arch
    assert (arch.num_heads, arch.text_len) == (2, 512)


def test_the_references_own_settings_are_understood() -> None:
    model = sf_core.load_model(
        PARITY / "weights_causal.safetensors",
        num_heads=2,
        text_len=16,
        local_attn_size=-1,
        sink_size=0,
        patch_size=[1, 2, 2],
    )
    assert model.arch.dim == 96


def test_a_models_own_state_dict_goes_through_a_file(tmp_path: Path) -> None:
    torch.save(random_model(layers=3, dim=48, heads=4).state_dict(), tmp_path / "m.pt")
    model = sf_core.load_model(tmp_path / "m.pt", num_heads=4)
    assert all(torch.equal(parameter, STATE[name]) for name, parameter in model.named_parameters())


def test_weights_arrive_in_the_dtype_asked_for_and_the_source_is_left_alone() -> None:
    model = sf_core.load_model(STATE, dtype=torch.bfloat16, num_heads=4)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    before = STATE["head.head.bias"].clone()
    with torch.no_grad():
        sf_core.load_model(STATE, num_heads=4).head.head.bias.add_(1)
    assert torch.equal(STATE["head.head.bias"], before)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"patch_embedding.weight": None}, {}, "not a Wan 2.1 transformer: it has no 'patch_embedding.weight'"),
        ({"blocks.1.ffn.0.bias": None}, {}, r"lacks 1 tensors \(blocks.1.ffn.0.bias"),
        ({"surprise": torch.zeros(1)}, {}, r"has 1 that no such model has \(surprise"),
        ({"blocks.0.self_attn.k.weight": torch.zeros(4, 4)}, {}, r"has the shape \[4, 4\]; expected \[48, 48\]"),
        ({"img_emb.proj.0.weight": torch.zeros(1)}, {}, "image-to-video transformer"),
        ({}, {"num_heads": 5}, "num_heads is 5, which does not cut a width of 48"),
        ({}, {"num_heads": None}, "a width of 48 is no multiple of 128: give num_heads"),
        ({}, {"dim": 64}, "dim is said to be 64, but the weights say 48"),
        ({}, {"num_head": 4}, "unknown settings of the architecture: num_head; known are"),
        ({}, {"text_len": 0}, "text_len is 0; expected a whole number from 1 on"),
        ({"blocks.7.ffn.0.bias": torch.zeros(96)}, {}, "it has blocks up to 7, but no 3"),
        ({"time_embedding.0.weight": None}, {}, "not a Wan 2.1 transformer: it has no 'time_embedding.0.weight'"),
        ({"text_embedding.0.weight": torch.zeros(48)}, {}, r"text_embedding.0.weight has the shape \[48\]"),
        ({"patch_embedding.weight": torch.zeros(48, 9, 1, 2, 2)}, {}, "reads 9 channels and gives 4: one that is led"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, torch.Tensor | None], settings: dict[str, Any], message: str
) -> None:
    state = {name: tensor for name, tensor in {**STATE, **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        sf_core.load_model(state, **{"num_heads": 4, "text_len": 6, **settings})


def test_a_file_that_is_cut_short_or_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"m.safetensors is not a safetensors file, or is cut short"):
        sf_core.load_model(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        sf_core.load_model(tmp_path / "none.safetensors")
