"""A model with two sets of weights (SGF+) is one model: named, described, compiled and counted as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import sf_core
from sf_core.model.two_sets import memory_name
from tests.helpers import SIZE, prompt, random_latents, random_model

CONFIG = sf_core.RolloutConfig(chunk_frames=2, window_frames=6, sink_frames=2, denoising_steps=(1000, 500))


def two_sets(memory_seed: int = 1) -> sf_core.CausalWan:
    return random_model(layers=2).with_memory(random_model(layers=2, seed=memory_seed))


def start(model: sf_core.CausalWan) -> sf_core.Session:
    return sf_core.Session.start(model, prompt(0), SIZE, CONFIG)


def run(session: sf_core.Session, chunks: int) -> sf_core.Session:
    for _ in range(chunks):
        session, _ = session.next_chunk()
    return session


def test_equal_sets_are_one_set() -> None:
    one = run(start(random_model(layers=2)), 4).latents
    assert torch.equal(run(start(two_sets(memory_seed=0)), 4).latents, one)
    assert not torch.equal(run(start(two_sets(memory_seed=1)), 4).latents, one)


def test_the_cache_counts_the_text_of_both_sets() -> None:
    model = two_sets()
    run(start(model), 2)
    assert model.caches.nbytes == model.cache_bytes(CONFIG, SIZE)
    assert model.cache_bytes(CONFIG, SIZE) > random_model(layers=2).cache_bytes(CONFIG, SIZE)


def test_a_change_of_either_set_changes_identity_and_chunks(tmp_path: Path) -> None:
    model = two_sets()
    session = run(start(model), 2)
    session.save(tmp_path / "s")
    before = session.next_chunk()[1]
    fingerprint, key = model.fingerprint, model.state_key()
    with pytest.raises(ValueError, match="load the one that made it"):
        sf_core.Session.load(tmp_path / "s", two_sets(memory_seed=2))
    assert torch.equal(sf_core.Session.load(tmp_path / "s", two_sets()).next_chunk()[1], before)
    assert model.memory is not None
    model.memory.blocks[0].self_attn.k.weight.mul_(1.5)
    assert (model.fingerprint, model.state_key()) != (fingerprint, key)
    assert not torch.equal(session.next_chunk()[1], before)


def test_weights_have_the_names_of_published_files() -> None:
    names = {name for name, _ in two_sets().named_weights()}
    assert {"memory_patch_embedding.weight", "blocks.1.memory_modulation", "memory_head.head.bias"} <= names
    assert {"blocks.0.ffn.0.memory_weight", "blocks.0.norm3.memory_bias"} <= names
    plain = {name for name in names if "memory_" not in name}
    assert names == plain | {memory_name(name) for name in plain}


def test_both_sets_are_compiled_whole() -> None:
    model, counter = two_sets(), CompileCounter()
    expected = run(start(model), 3).latents
    model.compile(backend=counter, fullgraph=True)
    model.release_cache()
    assert torch.allclose(run(start(model), 3).latents, expected, atol=1e-5)
    assert counter.frame_count


def test_sets_that_are_not_of_one_model_are_refused() -> None:
    with pytest.raises(ValueError, match="not one model"):
        random_model(layers=2).with_memory(random_model(layers=1))
    with pytest.raises(ValueError, match="it has one already"):
        two_sets().with_memory(random_model(layers=2))


@pytest.mark.parametrize("recache", [False, True, "joint"])
def test_lost_caches_rewinds_and_files_give_the_bits_of_a_straight_run(recache: bool | str, tmp_path: Path) -> None:
    def switched(session: sf_core.Session) -> sf_core.Session:
        return session.with_prompt(prompt(1), recache)

    given = random_latents(2)
    straight = run(switched(run(start(two_sets()).with_context(given), 3)), 3).latents
    model = two_sets()
    session = run(start(model).with_context(given), 4).rewind(1)
    model.release_cache()
    session = switched(session)
    session.save(tmp_path / "s")
    session = run(sf_core.Session.load(tmp_path / "s", model), 1)
    run(start(model), 1)
    model.release_cache()
    assert torch.equal(run(session, 2).latents, straight)
