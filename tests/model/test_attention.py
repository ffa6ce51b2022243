"""Backends are chosen in the stated order and called as their packages want to be called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import sf_core
from sf_core.model import attention
from tests.helpers import SIZE, prompt, random_model

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def _forget_what_is_installed() -> Iterator[None]:
    attention.is_installed.cache_clear()
    yield
    attention.is_installed.cache_clear()


def stand_in(monkeypatch: pytest.MonkeyPatch, package: str, name: str, function: Callable[..., Any]) -> None:
    module = ModuleType(package)
    setattr(module, name, function)
    monkeypatch.setitem(sys.modules, package, module)


def qkv() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 3, 4, 8), torch.randn(2, 9, 4, 8), torch.randn(2, 9, 4, 8)


def reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


@pytest.mark.parametrize("name", ["sdpa", "matmul"])
def test_what_pytorch_does_itself_is_attention(name: str) -> None:
    q, k, v = qkv()
    torch.testing.assert_close(attention.BACKENDS[name](q, k, v), reference(q, k, v))


@pytest.mark.parametrize("with_lse", [False, True])
def test_flash3_is_called_without_a_mask_and_both_its_answers_are_understood(
    monkeypatch: pytest.MonkeyPatch, with_lse: bool
) -> None:
    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, softmax_scale: Any = None, causal: bool = False) -> Any:
        assert not causal
        return (reference(q, k, v), None) if with_lse else reference(q, k, v)

    stand_in(monkeypatch, "flash_attn_interface", "flash_attn_func", flash_attn_func)
    q, k, v = qkv()
    torch.testing.assert_close(attention.flash3(q, k, v), reference(q, k, v))


def test_flash2_is_called_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_attn_func(
        q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: Any = None, causal: bool = False
    ) -> Tensor:
        assert dropout_p == 0.0
        assert not causal
        return reference(q, k, v)

    stand_in(monkeypatch, "flash_attn", "flash_attn_func", flash_attn_func)
    q, k, v = qkv()
    torch.testing.assert_close(attention.flash2(q, k, v), reference(q, k, v))


def test_sage_is_told_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def sageattn(q: Tensor, k: Tensor, v: Tensor, tensor_layout: str = "HND", is_causal: bool = False) -> Tensor:
        assert tensor_layout == "NHD"
        assert not is_causal
        return reference(q, k, v)

    stand_in(monkeypatch, "sageattention", "sageattn", sageattn)
    q, k, v = qkv()
    torch.testing.assert_close(attention.sage(q, k, v), reference(q, k, v))


def test_auto_takes_the_first_that_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention.choose_attention("auto", CPU, torch.bfloat16) == "sdpa"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    stand_in(monkeypatch, "flash_attn", "flash_attn_func", reference)
    assert attention.choose_attention("auto", CUDA, torch.bfloat16) == "sdpa"  # cuDNN's, on Hopper
    stand_in(monkeypatch, "flash_attn_interface", "flash_attn_func", reference)
    attention.is_installed.cache_clear()
    assert attention.choose_attention("auto", CUDA, torch.bfloat16) == "flash3"
    assert attention.choose_attention("auto", CUDA, torch.float32) == "sdpa"  # they round to half precision
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert attention.choose_attention("auto", CUDA, torch.bfloat16) == "flash2"


def test_sage_is_never_chosen_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "sageattention", "sageattn", reference)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert attention.choose_attention("auto", CUDA, torch.float16) == "sdpa"
    assert attention.choose_attention("sage", CUDA, torch.float16) == "sage"


def test_a_backend_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="needs the package flash_attn, which does not import here"):
        attention.choose_attention("flash2", CUDA, torch.float16)
    with pytest.raises(ValueError, match="unknown attention backend 'fast'; expected auto, sdpa"):
        attention.choose_attention("fast", CPU, torch.float32)


def test_a_caller_may_hand_in_its_own() -> None:
    model = random_model(layers=3)
    config = sf_core.RolloutConfig(chunk_frames=2, window_frames=6, denoising_steps=(1000, 500))
    expected = sf_core.Session.start(model, prompt(0), SIZE, config).next_chunk()[1]
    calls = []

    def own(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(q.shape)
        return reference(q, k, v)

    model.attention = own
    latents = sf_core.Session.start(model, prompt(0), SIZE, config).next_chunk()[1]
    assert len(calls) == 2 * 3 * 2  # self and cross, layers, steps
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
