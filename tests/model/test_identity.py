"""Weights are recognised in any number format, and told apart wherever they differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import sf_core
from sf_core.model.identity import contents_digest, describe_weights, same_weights, weights_fingerprint
from tests.helpers import SIZE, prompt, random_model

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MODEL = random_model(layers=2)
MATRIX = "blocks.1.ffn.0.weight"


def weights(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: parameter.detach().to(dtype).clone() for name, parameter in MODEL.named_parameters()}


def loaded(state: dict[str, Tensor]) -> sf_core.CausalWan:
    return sf_core.load_model(state, num_heads=2, text_len=6)


def in_dtype(dtype: torch.dtype, state: dict[str, Tensor]) -> sf_core.CausalWan:
    return sf_core.load_model(state, dtype=dtype, num_heads=2, text_len=6)


@pytest.mark.parametrize("saved_in", DTYPES)
@pytest.mark.parametrize("loaded_in", DTYPES)
def test_a_session_finds_its_weights_in_any_number_format(
    saved_in: torch.dtype, loaded_in: torch.dtype, tmp_path: Path
) -> None:
    session = sf_core.Session.start(in_dtype(saved_in, weights()), prompt(0), SIZE)
    session.save(tmp_path / "a.session")
    assert sf_core.Session.load(tmp_path / "a.session", in_dtype(loaded_in, weights())).other_models == ()


def changed(where: str) -> dict[str, Tensor]:
    """Weights with the same name, since none of the values that it is made from differs."""
    state = weights()
    flat = state[MATRIX].view(-1)
    sampled = torch.linspace(0, len(flat) - 1, 16, dtype=torch.float64).long()
    others = torch.ones(len(flat), dtype=torch.bool)
    others[sampled] = False
    if where == "one value":
        flat[5] += 0.5
    elif where == "its last bit":
        flat[5] = torch.nextafter(flat[5], torch.tensor(10.0))
    elif where == "most values":
        flat[others] = flat[others].flip(0)
    else:  # two rows change places, as far as that shows
        rows = state[MATRIX]
        rows[[1, 2]] = rows[[2, 1]]
        rows.view(-1)[sampled] = weights()[MATRIX].view(-1)[sampled]
    assert weights_fingerprint(state.items()) == weights_fingerprint(weights().items())
    return state


CHANGES = ["one value", "its last bit", "most values", "two rows"]


@pytest.mark.parametrize("where", CHANGES)
def test_weights_of_the_same_name_are_told_apart_wherever_they_differ(where: str, tmp_path: Path) -> None:
    state = changed(where)
    assert contents_digest(state.items()) != contents_digest(weights().items())
    sf_core.Session.start(MODEL, prompt(0), SIZE).save(tmp_path / "a.session")
    with pytest.raises(ValueError, match="by name, but with other weights"):
        sf_core.Session.load(tmp_path / "a.session", loaded(state))
    assert sf_core.Session.load(tmp_path / "a.session", loaded(state), allow_other_model=True).other_models


@pytest.mark.parametrize("other", DTYPES[1:])
def test_other_weights_in_another_number_format_are_told_apart(other: torch.dtype) -> None:
    described = describe_weights(weights().items())
    assert not same_weights(described, describe_weights([(n, w.to(other)) for n, w in changed("most values").items()]))
    assert not same_weights(described, describe_weights([(n, w.to(other)) for n, w in changed("one value").items()]))
    little = [
        (name, (w + 0.01 * w.std().nan_to_num() * torch.randn(w.shape)).to(other)) for name, w in weights().items()
    ]
    assert not same_weights(described, describe_weights(little))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn, torch.int8, torch.uint8])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (7, 5), (1000,), (64, 129)])
def test_every_bit_counts_in_every_number_format_and_size(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.arange(torch.Size(shape).numel()) % 50).reshape(shape).to(dtype)
    before = contents_digest([("a", tensor)])
    assert before == contents_digest([("a", tensor.clone())])
    for index in {0, tensor.numel() // 2, tensor.numel() - 1}:
        other = tensor.clone()
        other.view(-1).view(torch.uint8)[index * tensor.itemsize] ^= 1
        assert contents_digest([("a", other)]) != before


def test_what_is_no_description_is_no_model() -> None:
    described = describe_weights(weights().items())
    for damaged in ({"measures": "?"}, {"measures": ""}, {"contents": "00"}, {"measures": "AAAA"}):
        assert not same_weights(damaged, described)
