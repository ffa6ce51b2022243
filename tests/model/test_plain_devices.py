"""Devices that lack something which CPUs and CUDA GPUs have: float64, complex numbers, memory to pin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sf_core
from sf_core.cuda_streams import to_device_async
from sf_core.model.kv_cache import RollingKVCache
from sf_core.model.place import Place
from sf_core.model.rope import apply_rope, rope_rotations
from sf_core.schedule import flow_schedule, wide_dtype
from sf_core.session.sampler import sample_chunk
from tests.helpers import SIZE, random_model, relative

PLAIN = torch.device("meta")  # stands for MPS, Intel's Arc GPUs and DirectML; its tensors have no values
CONFIG = sf_core.RolloutConfig(chunk_frames=2, window_frames=5, sink_frames=1, sink_position="clamped")


class RefuseWideNumbers(TorchDispatchMode):
    """Raises, as such a device does, where a tensor on it has float64 or complex numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            wide = isinstance(tensor, Tensor) and (tensor.dtype == torch.float64 or tensor.is_complex())
            if wide and tensor.device == PLAIN:
                raise TypeError(f"{func} makes {tensor.dtype}, which the device does not have")
        return result


@pytest.mark.parametrize("kind", ["mps", "xpu", "privateuseone", "meta"])
def test_float64_is_used_only_where_every_device_of_a_kind_has_it(kind: str) -> None:
    assert wide_dtype(torch.device(kind)) == torch.float32
    assert wide_dtype(torch.device("cpu")) == wide_dtype(torch.device("cuda")) == torch.float64


def test_a_chunk_needs_neither_float64_nor_complex_numbers() -> None:
    """All that touches the device: prompt, noise, positions, steps, the cache and its moved sink."""
    model = random_model(layers=2).to(PLAIN)
    cache, steps, schedule = RollingKVCache(model.cache_shape(CONFIG, SIZE, 1)), (1000.0, 500.0), flow_schedule(5.0)
    model.use_attention()
    with RefuseWideNumbers():
        text = cache.text(b"", lambda: model.text_keys_values(torch.zeros(1, 5, 8)))
        for start in range(0, 10, 2):
            place = Place(start, 2, 0, 0)
            views, rotations = cache.open(place), model.rotations(range(start, start + 2), SIZE)

            def flow(x: Tensor, timestep: float, views: Any = views, rotations: Tensor = rotations) -> Tensor:
                times = torch.full((1, 1), timestep, device=PLAIN)
                return model.flow_over_cache(x, times, rotations, text, views)

            noise = torch.zeros(1, 4, 2, *SIZE)

            def noise_of(step: int, noise: Tensor = noise) -> Tensor:
                return noise.to(PLAIN)

            latents = sample_chunk(flow, noise_of, steps, schedule)
            schedule.to_flow(latents, latents, 500.0)
            model.write_over_cache(latents, torch.zeros(1, 1, device=PLAIN), rotations, text, views)
            cache.commit(place)
    assert latents.shape == (1, 4, 2, *SIZE)


def test_a_rotation_in_real_numbers_is_the_complex_one() -> None:
    x, rotations = torch.randn(2, 24, 2, 48), rope_rotations(range(1000, 1004), 2, 3, 48)
    assert rotations.is_complex()
    assert rope_rotations(range(4), 2, 3, 48, PLAIN).shape == torch.view_as_real(rotations).shape
    assert relative(apply_rope(x, torch.view_as_real(rotations)), apply_rope(x, rotations)) < 1e-6


@pytest.mark.parametrize("error", [RuntimeError, getattr(torch, "AcceleratorError", RuntimeError)])
def test_where_no_memory_can_be_pinned_a_plain_copy_does(
    error: type[RuntimeError],
) -> None:
    class Unpinned:
        device = torch.device("cpu")

        def pin_memory(self) -> Tensor:
            raise error("CUDA error: out of memory")

        def to(self, *where: Any, **how: Any) -> tuple[Any, ...]:
            return where, how

    copied: Any = to_device_async(Unpinned(), "cuda")  # type: ignore[arg-type]
    assert copied == ((torch.device("cuda"),), {})
