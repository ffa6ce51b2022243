"""The reference's golden numbers, reproduced."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import sf_core
from sf_core.model.architecture import timestep_embedding
from sf_core.model.rope import apply_rope, rope_rotations
from sf_core.schedule import FlowSchedule
from tests.helpers import CASES, PARITY, ROLLOUTS, assert_close, golden_session, relative


@pytest.mark.parametrize("case", ROLLOUTS)
def test_a_rollout_gives_the_latents_of_the_reference(case: str) -> None:
    session, tensors, chunks = golden_session(case)
    for _ in range(chunks):
        session, _ = session.next_chunk()
    assert_close(session.latents, tensors["latents"].transpose(1, 2))


def test_bfloat16_stays_within_two_percent_of_the_reference() -> None:
    session, tensors, chunks = golden_session("causal_bf16", torch.bfloat16)
    for _ in range(chunks):
        session, _ = session.next_chunk()
    assert relative(session.latents, tensors["latents"].float().transpose(1, 2)) <= 0.02
    assert relative(session.latents, tensors["latents_float32_run"].transpose(1, 2)) <= 0.02


def test_the_cache_holds_the_same_tokens_as_the_reference() -> None:
    session, tensors, chunks = golden_session("rolling_uneven")
    for _ in range(chunks):
        session, _ = session.next_chunk()
    session, _ = _run_lazy_commit(session)
    cache = session.model.caches._caches[0].cache
    shape, unit = cache.shape, cache.shape.frame_tokens
    assert session.head is not None
    place = session.head.place
    stored = slice((shape.front_frames - place.frames) * unit, None)  # the newest chunk, noisy, then sink and ring
    for name, theirs in tensors.items():
        if not name.startswith("kv.final"):
            continue
        layer, kind = int(name.split(".")[2][1:]), name.split(".")[3]
        ours = (cache._keys if kind == "k" else cache._values)[layer][:, stored]
        # The reference's cache at its end holds the last chunk clean and what was before it; so does ours, committed.
        committed = ours[:, place.frames * unit :]
        distance = torch.cdist(committed[0].flatten(1).double(), theirs[0].flatten(1).double())
        assert float(distance.min(dim=1).values.max()) < 1e-4


def _run_lazy_commit(session: sf_core.Session) -> tuple[sf_core.Session, Tensor]:
    """One more chunk, of whatever noise: its only use is that the newest chunk is committed before it."""
    return session.with_seed(0).next_chunk()


def test_the_bidirectional_forward_is_the_teacher() -> None:
    tensors = load_file(PARITY / "bidirectional.safetensors")
    model = sf_core.load_model(PARITY / "weights_train_real.safetensors", **CASES["bidirectional"]["model"])
    x = tensors["x"].transpose(1, 2)
    schedule = FlowSchedule(8.0)
    flow = model(x, tensors["float.timestep"], tensors["prompt_embeds"])
    assert_close(flow, tensors["float.flow"].transpose(1, 2))
    assert_close(model(x, tensors["float.timestep"][:, 0], tensors["prompt_embeds"]), flow)
    theirs = tensors["float.x0"].transpose(1, 2)
    for i in range(2):
        assert_close(schedule.to_x0(x[i], flow[i], float(tensors["float.timestep"][i, 0])), theirs[i])


@pytest.mark.parametrize("run", ["block", "framewise", "local", "iff", "tf_aug"])
def test_the_block_causal_forward_without_a_cache(run: str) -> None:
    tensors = {
        k.removeprefix(f"{run}."): v
        for k, v in load_file(PARITY / "causal_nocache.safetensors").items()
        if k.startswith(f"{run}.")
    }
    settings = CASES["causal_nocache"]["runs"][run]
    model = sf_core.load_model(PARITY / "weights_causal.safetensors", **CASES["causal_chunk"]["model"])
    clean = tensors["clean_x"].transpose(1, 2) if settings.get("tf") else None
    flow = model(
        tensors["x"].transpose(1, 2),
        tensors["timestep"],
        tensors["prompt_embeds"],
        chunk_frames=settings["chunk"],
        first_chunk_frames=1 if settings.get("iff") else None,
        window_frames=settings.get("local"),
        clean=clean,
        clean_timestep=settings.get("aug", 0.0),
    )
    assert_close(flow, tensors["flow"].transpose(1, 2))


@pytest.mark.parametrize("shift", [5, 8])
def test_the_schedule_is_the_references_to_the_bit(shift: int) -> None:
    tensors = load_file(PARITY / "scheduler.safetensors")
    schedule = FlowSchedule(shift)
    assert torch.equal(schedule.sigmas, tensors[f"shift{shift}.sigmas"])
    assert torch.equal(schedule.timesteps, tensors[f"shift{shift}.timesteps"])
    for steps, warped in CASES["scheduler"]["per_shift"][f"shift{shift}"]["warped_steps"].items():
        assert schedule.warp([int(step) for step in steps.split(",")]) == tuple(warped)
    names = ("x", "noise", "flow", "timestep", "add_noise", "flow_to_x0")
    get = {name: tensors[f"shift{shift}.float.{name}"] for name in names}
    for i, timestep in enumerate(get["timestep"].tolist()):
        assert_close(schedule.add_noise(get["x"][i], get["noise"][i], timestep), get["add_noise"][i])
        assert_close(schedule.to_x0(get["add_noise"][i], get["flow"][i], timestep), get["flow_to_x0"][i])


def test_rotary_positions_are_the_references() -> None:
    tensors = load_file(PARITY / "scheduler.safetensors")
    for start in (0, 1, 7, 500, 1022):
        rotations = rope_rotations(range(start, start + 2), 3, 4, 48)
        assert_close(apply_rope(tensors["rope.x"], rotations), tensors[f"rope.start{start}"])


def test_the_timestep_embedding_is_the_references() -> None:
    tensors = load_file(PARITY / "scheduler.safetensors")
    ours = timestep_embedding(tensors["timestep_embedding.t"], 64)
    assert ours.dtype == torch.float64
    assert float((ours - tensors["timestep_embedding.f64"]).abs().max()) < 1e-9
