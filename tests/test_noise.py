"""Noise depends on its address alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sf_core
from sf_core.noise import noise_key

SHAPE = (2, 4, 3, 4, 4)
numbers = st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=2, max_size=2, unique=True))
def test_two_addresses_have_two_keys(addresses: list[tuple[int, int, int, int]]) -> None:
    assert noise_key(*addresses[0]) != noise_key(*addresses[1])


def test_the_key_is_the_stated_hash() -> None:
    assert noise_key(0, 0, 0, 0) == 0xA141AF8A4A120DC5
    assert noise_key(1, 2, 3, 4) == 0xD2E09B25A4E6A3EB


def test_noise_depends_on_its_address_and_not_on_what_was_drawn_before() -> None:
    noise = sf_core.SeededNoise(5)
    first = noise(7, 2, SHAPE)
    torch.manual_seed(123)
    noise(0, 0, SHAPE)
    assert torch.equal(first, noise(7, 2, SHAPE))
    for other in (noise(8, 2, SHAPE), noise(7, 1, SHAPE), sf_core.SeededNoise(6)(7, 2, SHAPE)):
        assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_a_batch_element_has_its_own_noise_whatever_the_batch() -> None:
    noise = sf_core.SeededNoise(5)
    assert torch.equal(noise(0, 0, SHAPE)[:1], noise(0, 0, (1, *SHAPE[1:])))


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    sf_core.SeededNoise(5)(0, 0, SHAPE)
    assert torch.equal(state, torch.get_rng_state())


def test_noise_is_standard_normal_float32() -> None:
    drawn = sf_core.SeededNoise(0)(0, 0, (1, 16, 3, 60, 104))
    assert drawn.dtype == torch.float32
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.std()) - 1) < 0.01


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed is {seed}; expected a whole number from 0 to"):
        sf_core.SeededNoise(seed)
