"""Noise depends on its address alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sf_core
from sf_core.noise import noise_key
from tests.helpers import SIZE, prompt, random_model

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


# As published ---------------------------------------------------------------------------------------------------------

FRAME = (16, 4, 6)
CLIP = {"frames": (3, 3), "steps": (4, 4), "frame_shape": FRAME, "batch": 2}
TWO = (2, 16, 3, 4, 6)


def test_published_noise_is_what_the_authors_script_draws_on_a_cpu() -> None:
    """Recorded with ``set_seed(3)`` of guandeh17/Self-Forcing (33593df), and the draws of its inference.py."""
    noise = sf_core.PublishedNoise(3, **CLIP)  # type: ignore[arg-type]
    first, second = noise(0, 0, TWO), noise(1, 0, TWO)
    assert first.shape == TWO
    assert first.dtype == torch.float32
    assert first[0, 0, 0, 0, :4].tolist() == [-0.07666015625, 0.359375, -0.78125, 0.0712890625]
    assert second[1, 5, 0, 2, :3].tolist() == [-0.63671875, -0.369140625, -0.4921875]
    assert float(first.sum() + second.sum()) == pytest.approx(-5.924671173095703, abs=1e-3)
    added = noise(0, 1, TWO)
    assert added[0, 0, 0, 0, :4].tolist() == [-0.0101318359375, 2.125, -1.0703125, 1.796875]
    assert added[1, 7, 1, 1, :3].tolist() == [-0.6953125, -1.0625, 0.46484375]
    assert noise(1, 2, TWO)[0, 0, 0, 0, :4].tolist() == [0.43359375, -0.5, 0.4453125, 0.1513671875]
    assert noise(1, 3, TWO)[1, 15, 2, 3, 3:].tolist() == [-1.65625, 0.51171875, 0.91015625]


def test_published_noise_is_the_same_in_any_order_and_leaves_torch_s_own_alone() -> None:
    addresses = [(chunk, step) for chunk in range(2) for step in range(4)]
    straight = sf_core.PublishedNoise(5, **CLIP)  # type: ignore[arg-type]
    expected = {address: straight(*address, TWO) for address in addresses}
    state = torch.get_rng_state()
    other = sf_core.PublishedNoise(5, **CLIP)  # type: ignore[arg-type]
    for address in [(1, 3), (0, 1), (0, 1), (1, 0), (0, 3), (1, 1), (0, 0), *addresses]:
        assert torch.equal(other(*address, TWO), expected[address])
    assert torch.equal(state, torch.get_rng_state())


def published(seed: int = 0, frames: int = 9) -> sf_core.Session:
    session = sf_core.Session.start(random_model(), prompt(0), SIZE, sf_core.RolloutConfig(window_frames=6))
    return session.with_noise(sf_core.PublishedNoise.of(session, seed, frames))


def test_a_session_with_published_noise_rewinds_and_ends_with_its_clip() -> None:
    session = published()
    for _ in range(3):
        session, newest = session.next_chunk()
    again, _ = session.rewind(2).next_chunk()
    assert torch.equal(again.next_chunk()[1], newest)
    assert not torch.equal(published(1).next_chunk()[1], published().next_chunk()[1])
    assert not torch.equal(published(frames=12).next_chunk()[1], published().next_chunk()[1])
    with pytest.raises(ValueError, match="drawn for a video of 9 latent frames, which is at its end"):
        session.next_chunk()
    session.with_seed(4).next_chunk()  # the pack's own noise


@pytest.mark.parametrize("name", ["Rolling Forcing", "LongLive 2", "Krea Realtime 14B", "Causal-rCM, c3-3, 4 steps"])
def test_published_noise_is_refused_where_the_script_draws_otherwise(name: str) -> None:
    session = sf_core.Session.start(random_model(), prompt(0), SIZE, sf_core.preset(name))
    with pytest.raises(ValueError, match="their scripts draw otherwise"):
        sf_core.PublishedNoise.of(session, 0, 48)


def test_published_noise_needs_a_whole_clip_that_has_not_begun() -> None:
    session = published()
    with pytest.raises(ValueError, match="10 latent frames do not cut"):
        sf_core.PublishedNoise.of(session, 0, 10)
    with pytest.raises(ValueError, match="begins with a video's first chunk"):
        sf_core.PublishedNoise.of(session.next_chunk()[0], 0, 9)
