"""LoRAs: merged exactly, under every naming; what does not fit is named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sf_core
from tests.files.formats import State, diffusers
from tests.helpers import random_model

STATE: State = dict(random_model(layers=2, dim=48, heads=4).state_dict())
LAYERS = [
    name.removesuffix(".weight") for name in STATE if STATE[name].ndim == 2 and name.startswith(("blocks.", "time"))
]
RANK, STRENGTH = 5, 0.7
generator = torch.Generator().manual_seed(1)
UP = {layer: torch.randn(STATE[f"{layer}.weight"].shape[0], RANK, generator=generator) for layer in LAYERS}
DOWN = {layer: torch.randn(RANK, STATE[f"{layer}.weight"].shape[1], generator=generator) for layer in LAYERS}


def load(state: Any = STATE, **settings: Any) -> sf_core.CausalWan:
    return sf_core.load_model(state, num_heads=4, text_len=6, **settings)


def peft(layer: str, part: str) -> str:
    return f"base_model.model.{layer}.lora_{'B' if part == 'up' else 'A'}.weight"


def peft_default(layer: str, part: str) -> str:
    return f"base_model.model.{layer}.lora_{'B' if part == 'up' else 'A'}.default.weight"


def peft_fsdp(layer: str, part: str) -> str:
    return peft(layer.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."), part)


def peft_diffusers(layer: str, part: str) -> str:
    original = diffusers(f"{layer}.weight").removesuffix(".weight")
    return f"transformer.{original}.lora_{'B' if part == 'up' else 'A'}.weight"


def comfyui(layer: str, part: str) -> str:
    return f"diffusion_model.{layer}.lora_{part}.weight"


def kohya(layer: str, part: str) -> str:
    return f"lora_unet_{layer.replace('.', '_')}.lora_{part}.weight"


def named(name: Any, alpha: float | None = None) -> State:
    lora = {name(layer, "up"): UP[layer] for layer in LAYERS} | {name(layer, "down"): DOWN[layer] for layer in LAYERS}
    if alpha is not None:
        lora |= {name(layer, "up").split(".lora_")[0] + ".alpha": torch.tensor(alpha) for layer in LAYERS}
    return lora


def assert_merged(model: sf_core.CausalWan, factor: float, base: State = STATE) -> None:
    for name, parameter in model.named_parameters():
        expected = base[name].double()
        layer = name.removesuffix(".weight")
        if layer in UP and name.endswith(".weight"):
            expected = expected + factor * (UP[layer].double() @ DOWN[layer].double())
        torch.testing.assert_close(parameter, expected.to(parameter), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", [peft, peft_default, peft_fsdp, peft_diffusers])
def test_pefts_names_have_no_alpha(name: Any, tmp_path: Path) -> None:
    lora = named(name)
    assert_merged(load(lora=lora, lora_strength=STRENGTH), STRENGTH)
    torch.save({"generator_lora": lora, "critic_lora": named(kohya), "step": 3}, tmp_path / "lora.pt")  # LongLive's
    assert_merged(load(lora=tmp_path / "lora.pt"), 1.0)


@pytest.mark.parametrize("name", [comfyui, kohya])
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_comfyuis_and_kohyas_names_may_have_alphas(name: Any, alpha: float | None, tmp_path: Path) -> None:
    save_file(named(name, alpha), tmp_path / "lora.safetensors")
    factor = STRENGTH * (1 if alpha is None else alpha / RANK)
    assert_merged(load(lora=str(tmp_path / "lora.safetensors"), lora_strength=STRENGTH), factor)


def test_a_base_under_other_names_in_a_file(tmp_path: Path) -> None:
    base = {f"model._fsdp_wrapped_module.{name}": tensor for name, tensor in STATE.items()}
    torch.save({"generator": base, "critic": base}, tmp_path / "m.pt")
    assert_merged(load(tmp_path / "m.pt", lora=named(comfyui, 2.0)), 2.0 / RANK)


def test_the_merge_is_rounded_once() -> None:
    half = {name: tensor.bfloat16() for name, tensor in STATE.items()}
    merged = dict(load(half, lora=named(peft), dtype=torch.bfloat16).named_parameters())
    for layer in LAYERS:
        name = f"{layer}.weight"
        wide = torch.addmm(half[name].float(), UP[layer], DOWN[layer])
        assert torch.equal(merged[name], wide.bfloat16())


def test_a_merge_into_scaled_fp8() -> None:
    state = dict(STATE)
    name = f"{LAYERS[0]}.weight"
    state[name] = (STATE[name] * 50).to(torch.float8_e4m3fn)
    state[f"{LAYERS[0]}.scale_weight"] = torch.tensor(0.02)
    assert_merged(load(state, lora=named(peft)), 1.0, {**STATE, name: state[name].float() * 0.02})


def test_whole_differences() -> None:
    lora = named(comfyui) | {
        "diffusion_model.blocks.0.self_attn.norm_q.diff": torch.full((48,), 2.0),
        "diffusion_model.blocks.0.self_attn.q.diff_b": torch.full((48,), 3.0),
    }
    base = dict(STATE)
    base["blocks.0.self_attn.norm_q.weight"] = base["blocks.0.self_attn.norm_q.weight"] + 2 * STRENGTH
    base["blocks.0.self_attn.q.bias"] = base["blocks.0.self_attn.q.bias"] + 3 * STRENGTH
    assert_merged(load(lora=lora, lora_strength=STRENGTH), STRENGTH, base)


def test_a_convolutions_lora() -> None:
    up, down = torch.randn(48, 3), torch.randn(3, 4, 1, 2, 2)
    names = [f"diffusion_model.patch_embedding.lora_{part}.weight" for part in ("up", "down")]
    model = load(lora=dict(zip(names, (up, down), strict=True)))
    expected = STATE["patch_embedding.weight"] + (up @ down.flatten(1)).view(48, 4, 1, 2, 2)
    torch.testing.assert_close(model.patch_embedding.weight.data, expected)


def test_neither_base_nor_lora_is_changed() -> None:
    base, lora = ({name: tensor.clone() for name, tensor in state.items()} for state in (STATE, named(peft)))
    load(base, lora=lora)
    assert all(torch.equal(base[name], STATE[name]) for name in STATE)
    assert all(torch.equal(tensor, lora[name]) for name, tensor in named(peft).items())


X = "blocks.0.self_attn.q"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.strange": torch.ones(1)}, "the LoRA has 1 keys of no known form: blocks.0.strange"),
        ({f"{X}.dora_scale": torch.ones(1)}, rf"the LoRA has 1 keys of no known form: {X}.dora_scale"),
        ({"text_encoder.q.lora_A.weight": torch.ones(1, 1)}, "changes 1 layers that its base has not: text_encoder.q"),
        (
            {f"blocks.{i}.self_attn.q.lora_A.weight": torch.ones(1, 1) for i in range(30, 40)},
            r"changes 10 layers that its base has not: blocks.30.self_attn.q, .* \.\.\.$",
        ),
        ({f"base_model.model.{X}.lora_B.weight": None}, f"the LoRA is not whole: {X} has down alone"),
        (
            {f"base_model.model.{X}.alpha": torch.tensor(math.nan)},
            f"the LoRA's alpha for {X} is nan; expected a number",
        ),
        ({f"{X}.lora_up.weight": torch.ones(48, 5)}, f"the LoRA changes {X} twice, under different names"),
        ({f"base_model.model.{X}.lora_B.weight": torch.ones(48, 4)}, rf"down \[5, 48\], up \[48, 4\] for {X} do not"),
        ({f"base_model.model.{X}.lora_A.weight": torch.ones(5, 40)}, rf"do not fit its base's {X}.weight, \[48, 48\]"),
        ({f"base_model.model.{X}.lora_A.weight": torch.ones(5)}, "do not fit"),
        ({f"{X}.diff": torch.ones(48, 48)}, "do not fit its base's"),
        ({f"{X}.diff_b": torch.ones(47)}, rf"do not fit its base's {X}.bias, \[48\]"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor | None], message: str) -> None:
    lora = {name: tensor for name, tensor in {**named(peft), **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        load(lora=lora)


def test_a_lora_is_no_model_and_a_model_no_lora() -> None:
    with pytest.raises(ValueError, match="this is a LoRA, not a model: load the model that it was trained on"):
        load(named(peft))
    with pytest.raises(ValueError, match=r"this is not a LoRA: it has no lora_A.*\(but blocks"):
        load(lora=STATE)
    with pytest.raises(ValueError, match=r"this is not a LoRA: .*\(but nothing\)"):
        load(lora={})


def test_longlive_2_loads_from_a_base_and_a_lora_in_two_files(tmp_path: Path) -> None:
    """As its trainer writes them: rank and alpha are equal, on every Linear inside the blocks; 48 channels."""
    base: State = dict(random_model(layers=2, dim=48, heads=4, channels=48).state_dict())
    layers = [name for name in LAYERS if name.startswith("blocks.")]
    lora = {peft(layer, part): (UP if part == "up" else DOWN)[layer] for layer in layers for part in ("up", "down")}
    torch.save({"generator": {f"model.{name}": value for name, value in base.items()}}, tmp_path / "base.pt")
    torch.save({"generator_lora": lora}, tmp_path / "lora.pt")
    model = load(tmp_path / "base.pt", lora=tmp_path / "lora.pt")
    assert model.arch.in_dim == 48
    for name, value in model.named_parameters():
        layer = name.removesuffix(".weight")
        added = UP[layer] @ DOWN[layer] if layer in layers and name.endswith(".weight") else 0
        torch.testing.assert_close(value.detach(), base[name] + added)
