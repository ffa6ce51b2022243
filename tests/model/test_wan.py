"""The forward passes: cached equals uncached, no host sync, one graph, any size and frame index."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

import sf_core
from sf_core.model.kv_cache import RollingKVCache
from sf_core.model.place import Place
from sf_core.model.rope import apply_rope, frame_rotation, rope_rotations
from sf_core.model.wan import CausalWan
from tests.helpers import SIZE, prompt, random_latents, random_model, relative

CONFIG = sf_core.RolloutConfig(chunk_frames=2, window_frames=7, sink_frames=1, sink_position="clamped")


def test_a_cached_rollout_equals_one_forward_over_clean_and_noisy_frames() -> None:
    model = random_model()
    clean, noisy = random_latents(6, seed=1), random_latents(6, seed=2)
    whole = model(noisy, torch.tensor([500.0]), prompt(0), chunk_frames=2, clean=clean)
    config = sf_core.RolloutConfig(chunk_frames=2, window_frames=None)
    cache = RollingKVCache(model.cache_shape(config, SIZE, 1))
    text = model.text_keys_values(prompt(0))
    for start in (0, 2, 4):
        place, part = Place(start, 2, 0, 0), slice(start, start + 2)
        rotations = rope_rotations(range(start, start + 2), 2, 2, model.arch.head_dim)
        views = cache.open(place)
        flow = model.flow_over_cache(noisy[:, :, part], torch.full((1, 1), 500.0), rotations, text, views)
        assert relative(flow, whole[:, :, part]) < 2e-6
        model.write_over_cache(clean[:, :, part], torch.zeros(1, 1), rotations, text, views)
        cache.commit(place)


@pytest.mark.parametrize("size", [(4, 4), (2, 10), (6, 14)])
def test_any_even_latent_size(size: tuple[int, int]) -> None:
    session = sf_core.Session.start(random_model(layers=2), prompt(0), size, CONFIG)
    for _ in range(5):
        session, latents = session.next_chunk()
    assert latents.shape == (1, 4, 2, *size)


def test_a_size_that_does_not_divide_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"15 x 21 does not divide.*nearest that does is 16 x 20"):
        sf_core.Session.start(random_model(layers=1), prompt(0), (15, 21), CONFIG)


def test_rotary_scores_depend_on_frame_offsets_alone_at_any_index() -> None:
    q, k = torch.randn(1, 4, 2, 48), torch.randn(1, 4, 2, 48)

    def scores(start: int) -> torch.Tensor:
        turned = [apply_rope(x, rope_rotations([start + i], 2, 2, 48)) for i, x in enumerate((q, k))]
        return torch.einsum("bqhd,bkhd->bhqk", *turned)

    for start in (1023, 1024, 100_000, 10_000_000):
        assert relative(scores(start), scores(0)) < 1e-6


@pytest.mark.parametrize("head_dim", [36, 48, 128])
def test_the_rotation_by_frames_alone_is_the_bits_of_the_general_one(head_dim: int) -> None:
    for shift in (-7, 0, 3, 100_000):
        assert torch.equal(frame_rotation(shift, head_dim), rope_rotations([shift], 1, 1, head_dim))
    assert frame_rotation(3, head_dim, "meta").shape == (1, 1, head_dim // 2, 2)


@pytest.mark.slow
def test_no_frame_index_is_too_large() -> None:
    session = sf_core.Session.start(random_model(layers=1), prompt(0), SIZE, CONFIG)
    for _ in range(520):  # past 1024 frames, where the reference's table ends
        session, latents = session.next_chunk()
    assert session.frames == 1040
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_forward_and_commit_run_without_data_on_any_device(device: str) -> None:
    """Fake and meta tensors have no values: an ``.item()`` or a shape that depends on data fails.

    ``meta`` also stands for an accelerator: a tensor forgotten on the CPU does not mix with it.
    """
    arch = random_model(layers=2).arch
    with torch.device("meta"):
        model = CausalWan(arch)
    with FakeTensorMode() if device == "cpu" else nullcontext(), torch.no_grad():
        empty = {name: torch.empty(p.shape, device=device) for name, p in model.named_parameters()}
        model.load_state_dict(empty, assign=True)
        model.attention = "sdpa"
        model.use_attention()
        cache = RollingKVCache(model.cache_shape(CONFIG, SIZE, 2))
        text = model.text_keys_values(torch.zeros(2, 5, 8, device=device))
        for chunk in range(6):
            place = Place(2 * chunk, 2, 0, 1)
            rotations = rope_rotations(range(place.start, place.end), 2, 2, arch.head_dim, device)
            x = torch.zeros(2, 4, 2, *SIZE, device=device)
            timestep = torch.ones(2, 1, device=device)
            views = cache.open(place)
            assert model.flow_over_cache(x, timestep, rotations, text, views).shape == x.shape
            model.write_over_cache(x, timestep, rotations, text, views)
            cache.commit(place)


def test_three_graphs_do_for_all_blocks_chunks_and_prompts() -> None:
    """Before self-attention, with queries and without, and after it."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model, eager = random_model(layers=12), random_model(layers=12)
    model.compile(backend=counter, fullgraph=True)
    sessions = [sf_core.Session.start(m, prompt(0), SIZE, CONFIG) for m in (model, eager)]
    for chunk in range(30):
        if chunk % 7 == 3:
            sessions = [session.with_prompt(prompt(chunk)) for session in sessions]
        sessions = [session.next_chunk()[0] for session in sessions]
    assert counter.frame_count == 3
    assert relative(sessions[0].latents, sessions[1].latents) < 1e-5


def test_on_a_cpu_recording_changes_nothing() -> None:
    model, plain = random_model(layers=2), random_model(layers=2)
    model.record()
    sessions = [sf_core.Session.start(m, prompt(0), SIZE, CONFIG) for m in (model, plain)]
    for _ in range(6):
        sessions = [session.next_chunk()[0] for session in sessions]
    assert torch.equal(sessions[0].latents, sessions[1].latents)


def test_the_pass_that_only_writes_skips_what_nobody_reads() -> None:
    model = random_model(layers=3)
    session, _ = sf_core.Session.start(model, prompt(0), SIZE, CONFIG).next_chunk()
    calls: dict[str, int] = {}

    def count(name: str) -> None:
        def hook(*_: object) -> None:
            calls[name] = calls.get(name, 0) + 1

        dict(model.named_modules())[name].register_forward_hook(hook)

    for name in ("head.head", "blocks.2.self_attn.k", "blocks.2.self_attn.q", "blocks.2.ffn", "blocks.1.ffn"):
        count(name)
    session.next_chunk()
    steps = len(CONFIG.denoising_steps)
    assert calls["blocks.2.self_attn.k"] == calls["blocks.1.ffn"] == steps + 1
    assert calls["head.head"] == calls["blocks.2.self_attn.q"] == calls["blocks.2.ffn"] == steps


def test_a_prompts_keys_and_values_are_computed_once() -> None:
    model = random_model(layers=2)
    calls = []
    model.text_embedding.register_forward_hook(lambda *_: calls.append(1))
    session = sf_core.Session.start(model, prompt(0), SIZE, CONFIG)
    for _ in range(5):
        session, _ = session.next_chunk()
    assert len(calls) == 1
    session.with_prompt(prompt(1)).next_chunk()
    assert len(calls) == 2


def test_zero_rows_of_a_prompt_change_nothing() -> None:
    model = random_model(layers=2)
    text = prompt(0, rows=3)
    padded = torch.nn.functional.pad(text, (0, 0, 0, 3))
    runs = [sf_core.Session.start(model, t, SIZE, CONFIG).next_chunk()[1] for t in (text, padded)]
    assert torch.equal(*runs)


def test_the_time_embedding_tells_neighbouring_timesteps_apart() -> None:
    from sf_core.model.architecture import timestep_embedding

    a, b = timestep_embedding(torch.tensor([999.0, 999.5]), 256)
    assert float((a - b).abs().max()) > 0.1
    assert math.isclose(float(a[:128].square().sum() + a[128:].square().sum()), 128, rel_tol=1e-9)


def test_one_timestep_and_one_prompt_serve_a_batch() -> None:
    model, x = random_model(layers=2), random_latents(3, batch=2)
    expected = model(x, torch.tensor([[500.0] * 3] * 2), prompt(0).expand(2, -1, -1))
    for timestep in (torch.tensor(500.0), torch.tensor([500.0]), torch.tensor([500, 500])):
        assert relative(model(x, timestep, prompt(0)), expected) < 1e-6
