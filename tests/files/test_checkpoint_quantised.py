"""Quantised weights are read as the numbers that they stand for, whatever their format."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sf_core
from sf_core.files.checkpoint import open_source
from sf_core.files.weights import transformer_weights
from sf_core.hashing import sampled_values
from tests.files.formats import State, diffusers
from tests.helpers import random_model

STATE: State = dict(random_model(layers=2, dim=64, heads=4).state_dict())
NAME = "blocks.1.ffn.0"  # 128 x 64
WEIGHT = STATE[f"{NAME}.weight"]
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
E8M0 = torch.float8_e8m0fnu
FP8 = torch.float8_e4m3fn


def marked(kind: str) -> Tensor:
    return torch.tensor(list(json.dumps({"format": kind}).encode()), dtype=torch.uint8)


def in_blocks(rows: int, columns: int) -> tuple[State, Tensor]:
    """fp8 with a factor for each block of so many rows and columns, and the numbers that it stands for."""
    parts = WEIGHT.reshape(WEIGHT.shape[0] // rows, rows, WEIGHT.shape[1] // columns, columns)
    factors = parts.abs().amax((1, 3)) / 448
    stored = (parts / factors[:, None, :, None]).to(FP8)
    return {"weight": stored.view(WEIGHT.shape), "weight_scale": factors}, (
        stored.float() * factors[:, None, :, None]
    ).view(WEIGHT.shape)


def tiled(factors: Tensor) -> Tensor:
    """Factors in NVIDIA's order of tiles, by its formula for one of them."""
    rows, columns = factors.shape
    down, across = math.ceil(rows / 128), math.ceil(columns / 4)
    order = torch.zeros(down * across * 512, dtype=torch.uint8)
    for r in range(rows):
        for c in range(columns):
            tile = (r // 128) * across + c // 4
            order[tile * 512 + (r % 32) * 16 + (r % 128) // 32 * 4 + c % 4] = factors.view(torch.uint8)[r, c]
    return order.view(down * 128, across * 4).view(factors.dtype)


def nvfp4() -> tuple[State, Tensor]:
    whole = WEIGHT.abs().max() / (448 * 6)
    parts = WEIGHT.view(WEIGHT.shape[0], -1, 16)
    factors = (parts.abs().amax(-1) / 6 / whole).to(FP8)
    codes = ((parts / (factors.float() * whole)[..., None])[..., None] - FP4).abs().argmin(-1)
    numbers = (FP4[codes] * (factors.float() * whole)[..., None]).view(WEIGHT.shape)
    codes = codes.view(WEIGHT.shape).to(torch.uint8)
    stored = {"weight": codes[:, ::2] * 16 + codes[:, 1::2], "weight_scale": tiled(factors), "weight_scale_2": whole}
    return {**stored, "comfy_quant": marked("nvfp4")}, numbers


def mxfp8(as_bytes: bool) -> tuple[State, Tensor]:
    parts = WEIGHT.view(WEIGHT.shape[0], -1, 32)
    factors = (parts.abs().amax(-1) / 448).to(E8M0)
    stored = (parts / factors.float()[..., None]).to(FP8)
    numbers = (stored.float() * factors.float()[..., None]).view(WEIGHT.shape)
    order = tiled(factors)
    scale = order.view(torch.uint8) if as_bytes else order
    return {"weight": stored.view(WEIGHT.shape), "weight_scale": scale, "comfy_quant": marked("mxfp8")}, numbers


def int8(channels: bool, mark: bool) -> tuple[State, Tensor]:
    factor = (WEIGHT.abs().amax(1, keepdim=True) if channels else WEIGHT.abs().max()) / 127
    stored = (WEIGHT / factor).round().to(torch.int8)
    extra = {"comfy_quant": marked("int8_tensorwise")} if mark else {}
    return {"weight": stored, "weight_scale": factor, **extra}, stored.float() * factor


def smoothed() -> tuple[State, Tensor]:
    """A factor for each input beside the weight's own, as AWQ has it."""
    state, numbers = in_blocks(128, 64)
    inputs = torch.linspace(0.9, 1.1, 64)
    return {**state, "pre_quant_scale": inputs}, numbers * inputs


def in_one_row(name: str) -> tuple[State, Tensor]:
    state, numbers = in_blocks(1, 64)
    return {"weight": state["weight"], name: state["weight_scale"].flatten()}, numbers


LAYERS = {
    "a channel": in_blocks(1, 64),
    "a channel, one dimension": in_one_row("weight_scale"),
    "a channel, ComfyUI's older name": in_one_row("scale_weight"),
    "a block": in_blocks(32, 16),
    "a group of columns": in_blocks(1, 8),
    "smoothed": smoothed(),
    "nvfp4": nvfp4(),
    "mxfp8": mxfp8(as_bytes=False),
    "mxfp8, factors as bytes": mxfp8(as_bytes=True),
    "int8": int8(channels=False, mark=False),
    "int8, a channel": int8(channels=True, mark=False),
    "int8, marked": int8(channels=True, mark=True),
}


@pytest.mark.parametrize("rename", [str, diffusers])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_a_quantised_layer_is_read_as_what_it_stands_for(
    layer: tuple[State, Tensor], rename: type[str], tmp_path: Path
) -> None:
    parts, numbers = layer
    assert (numbers - WEIGHT).abs().max() < 0.35 * WEIGHT.abs().max()  # the test's own quantisation
    state = {rename(name): tensor for name, tensor in STATE.items() if name != f"{NAME}.weight"}
    at = rename(f"{NAME}.weight").removesuffix("weight")
    path = tmp_path / "m.safetensors"
    save_file(state | {at + kind: part.contiguous() for kind, part in parts.items()}, path)
    model = sf_core.load_model(path, num_heads=4, text_len=6)
    assert torch.equal(model.get_parameter(f"{NAME}.weight"), numbers)
    assert torch.equal(model.get_parameter("blocks.0.ffn.0.weight"), STATE["blocks.0.ffn.0.weight"])
    (weight,) = (w for name, w in transformer_weights(open_source(path)[0]).items() if name == f"{NAME}.weight")
    assert torch.equal(weight.sampled_values(), sampled_values(numbers))
    assert weight.shape == tuple(WEIGHT.shape)
    assert weight.dtype == torch.bfloat16


def test_marks_may_be_in_the_metadata(tmp_path: Path) -> None:
    parts, numbers = nvfp4()
    state = {name: tensor for name, tensor in STATE.items() if name != f"{NAME}.weight"}
    state |= {f"{NAME}.{kind}": part.contiguous() for kind, part in parts.items() if kind != "comfy_quant"}
    path = tmp_path / "m.safetensors"
    for layers, whole in (({NAME: {"format": "nvfp4"}}, True), ({}, False)):
        save_file(state, path, {"_quantization_metadata": json.dumps({"layers": layers})})
        if whole:
            model = sf_core.load_model(path, num_heads=4, text_len=6)
            assert torch.equal(model.get_parameter(f"{NAME}.weight"), numbers)
        else:
            with pytest.raises(ValueError, match="stored as uint8, with factors in float8_e4m3fn, and nothing says"):
                sf_core.load_model(path, num_heads=4, text_len=6)


def test_rows_that_do_not_fill_a_block() -> None:
    """A model of 200 rows in blocks of 128: the last block is smaller, as DeepSeek's writers have it."""
    state: State = dict(random_model(layers=1, dim=200, heads=4).state_dict())
    factors = torch.rand(2, 2) + 0.5
    state["blocks.0.self_attn.q.weight"] = state["blocks.0.self_attn.q.weight"].to(FP8)
    numbers = state["blocks.0.self_attn.q.weight"].float()
    numbers = numbers * factors.repeat_interleave(128, 0)[:200].repeat_interleave(128, 1)[:, :200]
    state["blocks.0.self_attn.q.weight_scale_inv"] = factors
    model = sf_core.load_model(state, num_heads=4, text_len=6)
    assert torch.equal(model.get_parameter("blocks.0.self_attn.q.weight"), numbers)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"comfy_quant": marked("nvfp4"), "weight_scale": torch.ones(1)}, "marked as nvfp4, of the shape"),
        (
            {"comfy_quant": marked("convrot_w4a4"), "weight_scale": torch.ones(1)},
            "stored as convrot_w4a4, which is not",
        ),
        (
            {"comfy_quant": torch.tensor(list(b"[]"), dtype=torch.uint8)},
            "mark of the quantised layer .* makes no sense",
        ),
        ({"weight": torch.ones(128, 64, dtype=torch.int8)}, "is stored as int8, without a factor, which is not read"),
    ],
)
def test_what_cannot_be_read_is_named(parts: State, message: str) -> None:
    state = {**STATE, **{f"{NAME}.{kind}": part for kind, part in parts.items()}}
    with pytest.raises(ValueError, match=message):
        sf_core.load_model(state, num_heads=4, text_len=6)
