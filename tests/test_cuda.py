"""What is promised on CPUs, held on a GPU. Where there is none, all of it is said to be untried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import sf_core
from benchmarks.tiny_world.evaluate import frames_of, make_videos
from benchmarks.tiny_world.observe import observe
from benchmarks.tiny_world.scorer import judge, summarize
from sf_core import tiny
from sf_core.model.attention import BACKENDS, is_installed
from sf_core.model.cuda_graphs import RecordedPass
from sf_core.model.kv_cache import RollingKVCache
from sf_core.session.next_chunk import NextChunk
from sf_core.session.sampler import ChunkForward, write_pass
from sf_core.tiny.world import prompts
from sf_core.training import Trainer, rollout
from sf_core.training.cost.memory import rollout_bytes
from sf_core.training.trainer import TrainingStopped
from tests.helpers import ROLLOUTS, SIZE, golden_session, prompt, random_latents, random_model, relative
from tests.training import golden as training_golden
from tests.training.recipes import WORLD

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

CUDA = torch.device("cuda", 0)
CONFIG = sf_core.RolloutConfig(chunk_frames=2, window_frames=7, sink_frames=1, sink_position="clamped")


@pytest.fixture(autouse=True)
def _float32_is_float32() -> Iterator[None]:
    """Convolutions come out in TF32 unless that is forbidden."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def golden(case: str, dtype: torch.dtype = torch.float32) -> tuple[sf_core.Session, dict[str, Tensor], int]:
    return golden_session(case, dtype, CUDA)


def on_gpu(layers: int = 4, **sizes: Any) -> sf_core.CausalWan:
    return random_model(layers, **sizes).to(CUDA)


def rolled_out(session: sf_core.Session, chunks: int) -> sf_core.Session:
    for _ in range(chunks):
        session, _ = session.next_chunk()
    return session


# Parity -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ROLLOUTS)
def test_a_rollout_gives_the_latents_of_the_reference(case: str) -> None:
    session, tensors, chunks = golden(case)
    session = rolled_out(session, chunks)
    assert session.latents.device == CUDA
    assert relative(session.latents.cpu(), tensors["latents"].transpose(1, 2)) <= 5e-6


def test_bfloat16_stays_within_two_percent_of_the_reference() -> None:
    session, tensors, chunks = golden("causal_bf16", torch.bfloat16)
    latents = rolled_out(session, chunks).latents.cpu()
    assert relative(latents, tensors["latents"].float().transpose(1, 2)) <= 0.02
    assert relative(latents, tensors["latents_float32_run"].transpose(1, 2)) <= 0.02


@pytest.mark.parametrize(("case", "run", "gradients", "options"), training_golden.RUNS)
def test_a_training_step_is_the_references(
    case: str, run: str, gradients: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the CPU, with every network and recorded tensor on the GPU."""
    on_the_gpu(monkeypatch, gradient=2e-5)
    training_golden.check_training_step(case, run, gradients, options, True)


def test_the_critics_loss_is_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_gpu(monkeypatch, gradient=2e-5)
    training_golden.check_critic_step()


def on_the_gpu(monkeypatch: pytest.MonkeyPatch, gradient: float) -> None:
    load, load_model, load_vae = training_golden.load, sf_core.load_model, sf_core.load_vae

    def loaded(case: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        runs, tensors = load(case)
        stay = ("rng.exit_flags", "rng.raw_timestep", ".timestep")  # what is drawn or looked up, as a caller has it
        return runs, {k: v if any(part in k for part in stay) else v.to(CUDA) for k, v in tensors.items()}

    monkeypatch.setattr(training_golden, "load", loaded)
    monkeypatch.setattr(training_golden, "GRADIENT", gradient)
    monkeypatch.setattr(sf_core, "load_model", lambda source, **kw: load_model(source, CUDA, **kw))
    monkeypatch.setattr(sf_core, "load_vae", lambda source: load_vae(source, CUDA))


def test_whole_videos_are_those_of_the_cpu() -> None:
    """VAE and all, in float32."""
    text = tiny.load_text().encode(tiny.PROMPT)
    videos = []
    for device in ("cpu", "cuda"):
        session = rolled_out(sf_core.Session.start(tiny.load_transformer(device), text), 4)
        vae = tiny.load_vae(device)
        whole, decoder = vae.decode(session.latents), vae.stream_decoder()
        parts = [decoder(part, at=3 * i) for i, part in enumerate(session.latents.split(3, dim=2))]
        assert float((torch.cat(parts, dim=1) - whole).abs().max()) < 1e-4
        assert relative(vae.encode(whole).cpu(), session.latents.cpu()) < 0.5
        videos.append(whole.cpu())
    assert float((videos[1] - videos[0]).abs().max()) < 2e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tiny_model_follows_its_prompts(dtype: torch.dtype) -> None:
    captions, latents = prompts(60, seed=6), 18
    parts = tiny.load_transformer(CUDA, dtype), tiny.load_vae(CUDA, dtype), tiny.load_text().encode
    seen = [observe(frames) for frames in make_videos(*parts, captions, latents)]
    found = summarize([judge(clip, said, 0, frames_of(latents)) for clip, said in zip(seen, captions, strict=True)])
    assert found["all_correct"] >= 0.85


# The hot path -------------------------------------------------------------------------------------------------------


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever waits for the GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def unwaiting(work: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with no_waiting():
            return work(*args, **kwargs)

    return run


@pytest.mark.parametrize("compiled", [False, True])
def test_a_chunk_waits_for_the_gpu_only_at_its_end(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and positions included; then it is looked whether the latents are finite, and what names them."""
    model = on_gpu(layers=2)
    if compiled:
        model.compile(fullgraph=True)
    session = rolled_out(sf_core.Session.start(model, prompt(0), SIZE, CONFIG), 5)  # the ring is full
    monkeypatch.setattr(NextChunk, "_denoise", unwaiting(NextChunk._denoise))
    monkeypatch.setattr("sf_core.session.next_chunk.write_pass", unwaiting(write_pass))
    monkeypatch.setattr(RollingKVCache, "commit", unwaiting(RollingKVCache.commit))
    monkeypatch.setattr("sf_core.session.next_chunk.ChunkForward", unwaiting(ChunkForward))
    rolled_out(session, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_streamed_decoder_waits_for_nothing(dtype: torch.dtype) -> None:
    decoder, latents = tiny.load_vae(CUDA, dtype).stream_decoder(), torch.randn(1, 16, 3, 8, 8, device=CUDA)
    decoder(latents, at=0)
    with no_waiting():
        assert decoder(latents, at=3).shape[1] == 12
        assert decoder(latents, at=9, history=latents.repeat(1, 1, 3, 1, 1)).shape[1] == 12


def test_compiled_it_samples_the_same_from_three_graphs() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("inductor")
    model, eager = on_gpu(layers=6), on_gpu(layers=6)
    model.compile(backend=counter, fullgraph=True)
    sessions = [sf_core.Session.start(m, prompt(0), SIZE, CONFIG) for m in (model, eager)]
    ours, theirs = (rolled_out(session, 7).latents for session in sessions)
    assert counter.frame_count == 3
    assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("compiled", [False, True])
def test_replayed_it_samples_the_same_bits(compiled: bool) -> None:
    """Whatever happens to prompt, cache and session on the way."""
    model, plain = on_gpu(layers=3), on_gpu(layers=3)
    if compiled:
        for one in (model, plain):
            one.compile(fullgraph=True)
    model.record()
    sessions = [sf_core.Session.start(m, prompt(0), SIZE, CONFIG) for m in (model, plain)]
    acts: list[Callable[[sf_core.Session], sf_core.Session]] = [
        lambda session: session.with_prompt(prompt(1)),
        lambda session: session.with_prompt(prompt(2), recache=True),
        lambda session: session.rewind(2).with_seed(9),
        lambda session: session.with_cut(),
    ]
    for act in acts:
        sessions = [rolled_out(act(rolled_out(session, 8)), 3) for session in sessions]
        model.release_cache()
    assert isinstance(model.flow_over_cache, RecordedPass)
    assert torch.equal(sessions[0].latents, sessions[1].latents)


def test_once_the_ring_is_full_passes_are_replayed() -> None:
    model = on_gpu(layers=2)
    calls: list[object] = []
    model.patch_embedding.register_forward_hook(lambda *_: calls.append(_))
    model.record()
    session = rolled_out(sf_core.Session.start(model, prompt(0), SIZE, CONFIG), 8)
    calls.clear()
    rolled_out(session, 4)
    assert not calls


HALF = [name for name in BACKENDS if is_installed(name) and name != "sage"]


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_attentions_that_are_here_agree(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 96, 4, 128), (2, 320, 4, 128), (2, 320, 4, 128))
    q, k, v = (torch.randn(shape, generator=generator).to(CUDA, dtype) for shape in shapes)
    expected = BACKENDS["matmul"](q.double(), k.double(), v.double())
    limit = 2e-3 if dtype == torch.float16 else 1e-2
    assert relative(BACKENDS[name](q, k, v).cpu(), expected.cpu()) < limit


@pytest.mark.parametrize("hold_back", [0, 1])
def test_a_stream_with_two_queues_gives_what_a_plain_loop_gives(hold_back: int) -> None:
    model, vae = tiny.load_transformer(CUDA), tiny.load_vae(CUDA)
    session = sf_core.Session.start(model, tiny.load_text().encode(tiny.PROMPT))
    plain = rolled_out(session, 8)
    expected = vae.decode(plain.latents)
    model.release_cache()
    events = list(sf_core.stream(session, vae.stream_decoder(), seconds=5.8, fps=16, hold_back=hold_back))
    assert torch.equal(events[-1].session.latents, plain.latents)
    frames = torch.cat([event.frames for event in events], dim=1)
    assert float((frames - expected).abs().max()) < 1e-4


# Values and memory --------------------------------------------------------------------------------------------------


def test_noise_is_the_cpus() -> None:
    sessions = [sf_core.Session.start(random_model(layers=1).to(d), prompt(0), SIZE, CONFIG) for d in ("cpu", CUDA)]
    drawn = [session.noise(3, 1, (1, 4, 2, *SIZE)) for session in sessions]
    assert torch.equal(*drawn)
    one, two = (rolled_out(session, 3).latents.cpu() for session in sessions)
    assert relative(one, two) < 1e-5


def test_a_session_is_restored_on_either_device(tmp_path: Path) -> None:
    model = on_gpu(layers=2)
    session = sf_core.Session.start(model, prompt(0), SIZE, CONFIG).with_context(random_latents(4))
    session = rolled_out(session, 12).with_prompt(prompt(1), recache=True).with_seed(5)
    session = rolled_out(session, 2)
    session.save(tmp_path / "a.session")
    went_on = rolled_out(session, 2).latents.cpu()
    for device in ("cpu", CUDA):
        again = sf_core.Session.load(tmp_path / "a.session", random_model(layers=2).to(device))
        assert torch.equal(again.latents.cpu(), session.latents.cpu())
        assert relative(rolled_out(again, 2).latents.cpu(), went_on) < 1e-5
    model.release_cache()
    rebuilt, _ = session.next_chunk()
    assert rebuilt.how.startswith("replay")
    assert relative(rebuilt.next_chunk()[0].latents.cpu(), went_on) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_takes_what_was_predicted(dtype: torch.dtype) -> None:
    model, size = on_gpu(layers=4, dim=256, heads=2).to(dtype), (32, 32)
    before = torch.cuda.memory_allocated()
    rolled_out(sf_core.Session.start(model, prompt(0), size, CONFIG), 5)
    predicted = model.cache_bytes(CONFIG, size)
    assert model.caches.nbytes == predicted
    held = torch.cuda.memory_allocated() - before  # latents of the past are on the CPU
    assert predicted <= held <= 1.02 * predicted + 2**20
    model.release_cache()
    assert torch.cuda.memory_allocated() - before < 2**21


@pytest.mark.parametrize("kv_dtype", [None, "int8"])
def test_a_cache_in_host_memory_gives_the_same_bits_and_leaves_the_room_that_was_predicted(
    kv_dtype: str | None,
) -> None:
    model = tiny.load_transformer(CUDA, torch.bfloat16)
    text, latents = tiny.load_text().encode(tiny.PROMPT), []
    for offload in (False, True):
        config = sf_core.RolloutConfig(window_frames=12, sink_frames=1, kv_dtype=kv_dtype, kv_offload=offload)
        model.release_cache()
        session = sf_core.Session.start(model, text, (8, 8), config, seed=3)
        latents.append(rolled_out(session, 8).latents)
        shape = model.cache_shape(config, (8, 8), 1)
        assert model.caches.nbytes == shape.nbytes()
        held = model.caches._caches[0].cache._held()
        assert {tensor.is_pinned() for tensor in held} == {offload}
    assert torch.equal(*latents)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_rollout_takes_no_more_than_was_predicted(checkpointing: bool) -> None:
    """In float32, as predicted on the CPU; kernels of a GPU may keep less for the backward pass."""
    model, size, frames = on_gpu(layers=6, dim=256, heads=2).requires_grad_(True), (32, 32), 12
    model.gradient_checkpointing = checkpointing
    config = sf_core.RolloutConfig(denoising_steps=(1000, 500))
    predicted = rollout_bytes(model.arch, config, size, 1, frames, checkpointing=checkpointing).peak
    weights = sum(p.nbytes for p in model.parameters())
    for _ in range(2):  # the first makes workspaces too
        model.zero_grad()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        made = rollout(model, prompt(0), sf_core.SeededNoise(0), config, 1, frames, latent_size=size)
        made.latents.sum().backward()
        del made
        taken = torch.cuda.max_memory_allocated() - before
    assert 0.6 * predicted <= taken <= 1.05 * predicted + 2 * weights


# Training -----------------------------------------------------------------------------------------------------------


STAGES = """
[[stages]]
kind = "vae"
dim = 4
frames = 1
batch = 4
steps = 3
optimizer = { name = "muon", lr = 3e-3 }
[[stages]]
kind = "teacher"
batch = 4
steps = 3
optimizer = { name = "muon", lr = 3e-3, ema = 0.5 }
[[stages]]
kind = "self-forcing"
batch = 2
accumulate = 2
steps = 4
ratio = 2
checkpointing = true
optimizer = { lr = 5e-4, ema = 0.5 }
critic = { lr = 1e-3 }
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_that_is_interrupted_goes_on(tmp_path: Path, dtype: str) -> None:
    """On a GPU not to the same bits: sums are formed in whatever order, and AdamW makes steps of tiny gradients."""
    head = WORLD.replace('name = "small"', f'name = "small"\ndevice = "cuda"\ndtype = "{dtype}"')
    (tmp_path / "recipe.toml").write_text(head + STAGES)
    made = Trainer(tmp_path / "recipe.toml", tmp_path / "straight").run()
    runs = 0
    while True:
        trainer = Trainer(tmp_path / "recipe.toml", tmp_path / "broken", resume=runs > 0)
        trainer.request_stop()  # after a step
        try:
            again = trainer.run()
            break
        except TrainingStopped:
            runs += 1
    assert runs == 10
    straight, resumed = (torch.cat([w.flatten() for _, w in sorted(load_file(p).items())]) for p in (made, again))
    assert relative(straight, resumed) < 2e-2
