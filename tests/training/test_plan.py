"""The predicted memory and operations of a training are those of networks without memory (fake tensors)."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sf_core.model.architecture import WanArchitecture
from sf_core.model.wan import CausalWan
from sf_core.training.cost.plan import (
    LATENT_SIZE,
    PUBLISHED,
    SIZES,
    adapter_count,
    forward_flops,
    table,
    training_bytes,
)
from sf_core.training.engine.lora_adapters import AdaptedWan, state_without_base
from sf_core.training.recipe import AdapterSettings


def in_bfloat16(arch: WanArchitecture) -> CausalWan:
    torch.set_default_dtype(torch.bfloat16)
    try:
        return CausalWan(arch)
    finally:
        torch.set_default_dtype(torch.float32)


def bytes_in(*networks: torch.nn.Module) -> int:
    """Of all parameters, each tensor once."""
    return sum({id(p.untyped_storage()): p.nbytes for net in networks for p in net.parameters()}.values())


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_three_networks_and_their_optimizers_take_what_is_predicted(size: str) -> None:
    arch = SIZES[size]
    with FakeTensorMode():
        generator, critic, average = (CausalWan(arch) for _ in range(3))
        teacher = in_bfloat16(arch)
        found = training_bytes(arch, arch, PUBLISHED, LATENT_SIZE)
        assert found.weights == bytes_in(generator, critic, teacher)
        assert found.average == bytes_in(average)
        assert (found.gradients, found.moments) == grown([*generator.parameters()], [*critic.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize(("size", "rank"), [("1.3B", 256), ("14B", 64)])
def test_adapters_over_one_base_take_what_is_predicted(size: str, rank: int) -> None:
    arch, lora = SIZES[size], AdapterSettings(rank=rank, alpha=rank)
    with FakeTensorMode():
        base = in_bfloat16(arch)
        generator, critic, average = (AdaptedWan(base, lora) for _ in range(3))
        found = training_bytes(arch, arch, PUBLISHED, LATENT_SIZE, lora=lora)
        assert found.weights == bytes_in(base, generator, critic)
        assert found.average == bytes_in(base, average) - bytes_in(base)
        trained = [[p for p in net.requires_grad_(True).parameters() if p.requires_grad] for net in (generator, critic)]
        assert (found.gradients, found.moments) == grown(*trained)
        assert sum(tensor.nbytes for tensor in state_without_base(generator).values()) == 4 * adapter_count(arch, rank)


def grown(generator: list[torch.nn.Parameter], critic: list[torch.nn.Parameter]) -> tuple[int, int]:
    """Bytes of the generator's gradients, and of what two optimizers keep after a step of each."""
    kept = 0
    for parameters in (generator, critic):
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, foreach=False)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        state = [value for one in optimizer.state.values() for value in one.values()]
        kept += sum(value.nbytes for value in state if value.ndim)
    return sum(p.grad.nbytes for p in generator if p.grad is not None), kept


def test_operations_are_those_that_torch_counts() -> None:
    """But for what does not grow with the video: the text, the time."""
    arch = SIZES["1.3B"]
    with FakeTensorMode(), torch.no_grad():
        model = CausalWan(arch)
        model.attention = "matmul"  # torch does not count the fused one on the CPU
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 16, 21, *LATENT_SIZE), torch.full((1, 21), 500.0), torch.empty(1, 512, 4096))
    assert forward_flops(arch, LATENT_SIZE, 21, 21) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_other_architectures_are_refused_for_adapters() -> None:
    with pytest.raises(ValueError, match="of one architecture"):
        training_bytes(SIZES["1.3B"], SIZES["14B"], PUBLISHED, LATENT_SIZE, lora=AdapterSettings())


def test_one_gpu_of_80_gb_is_enough_for_adapters_of_1_3b() -> None:
    assert training_bytes(*2 * (SIZES["1.3B"],), PUBLISHED, LATENT_SIZE, lora=AdapterSettings()).total < 24 * 2**30
    assert table().count("\n") == 8
