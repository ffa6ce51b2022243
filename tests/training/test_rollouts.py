"""A rollout for training is what inference does, with a gradient where training wants one and nowhere else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import sf_core
import sf_core.session.next_chunk as next_chunk_module
from sf_core.model.kv_cache import RollingKVCache
from sf_core.schedule import flow_schedule
from sf_core.session.archive import StoredLatents
from sf_core.session.replay import CachePass
from sf_core.session.sampler import write_pass
from sf_core.training import DMD, Rollout, SiD, rollout
from sf_core.training.losses.forced_rollout import forced_rollout
from sf_core.vae.video_vae import VideoVAE
from tests.helpers import PARITY, SIZE, prompt, random_latents, random_model, relative, sink_settings

MODEL = random_model()
NOISE = sf_core.SeededNoise(3)
TWO_STEPS = sf_core.RolloutConfig(chunk_frames=2, denoising_steps=(1000, 500))


@dataclass(frozen=True)
class Video:
    """Settings of a small rollout."""

    config: sf_core.RolloutConfig
    frames: int
    batch: int
    context: int  # latent frames

    @property
    def chunks(self) -> int:
        """Sampled ones."""
        config = self.config
        blocks = [0, *range(config.frames_of_block(0), self.frames, config.chunk_frames)]
        return sum(start >= self.context for start in blocks)


@st.composite
def videos(draw: st.DrawFn) -> Video:
    chunk, sink = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    first = draw(st.sampled_from([None, 1, 2]))
    window = draw(st.one_of(st.none(), st.integers(max(chunk + sink, first or 0), chunk + sink + 3)))
    config = sf_core.RolloutConfig(
        chunk_frames=chunk,
        first_chunk_frames=first,
        window_frames=window,
        sink_frames=sink,
        **sink_settings(draw, window),
        denoising_steps=draw(st.sampled_from([(1000,), (1000, 500), (1000, 750, 500)])),
        context_noise=draw(st.sampled_from([0, 50])),
    )
    ends = [config.frames_of_block(0) + i * chunk for i in range(8)]
    context = draw(st.sampled_from([0, 0, *ends[:2]]))
    return Video(config, draw(st.sampled_from(ends[:1:-1])), draw(st.integers(1, 2)), context)


def trainable(layers: int = 2) -> sf_core.CausalWan:
    return random_model(layers).requires_grad_(True)


def roll(model: sf_core.CausalWan, config: sf_core.RolloutConfig, frames: int, **options: Any) -> Rollout:
    """One video with the last step as its exit, unless said otherwise."""
    usual: dict[str, Any] = {"noise": NOISE, "exit_step": len(config.denoising_steps) - 1, "latent_size": SIZE}
    return rollout(model, prompt(0), config=config, frames=frames, **usual | options)


def gradients(value: Tensor, model: torch.nn.Module) -> list[Tensor]:
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, model.parameters(), strict=True)]


# Like inference --------------------------------------------------------------------------------------------------


def inference(video: Video, text: Tensor, context: Tensor | None, switch: tuple[int, Tensor] | None = None) -> Tensor:
    """What a session makes if it noises its clean chunks, before it writes their keys and values, as training does.

    Args:
        video: Its settings.
        text: Its prompt.
        context: Its beginning.
        switch: A frame, and the prompt from there on.
    """
    config = video.config

    def write_noised(model: sf_core.CausalWan, cache: RollingKVCache, todo: CachePass, state: bytes) -> Any:
        block = todo.block
        if block.chunk is not None:
            latents = block.latents.get()
            noise = NOISE(block.chunk, len(config.timesteps(block.chunk)), tuple(latents.shape))
            noisy = flow_schedule(config.shift).add_noise(latents, noise, block.timestep)
            todo = replace(todo, block=replace(block, latents=StoredLatents(noisy)))
        return write_pass(model, cache, todo, state)

    MODEL.release_cache()
    with patch.object(next_chunk_module, "write_pass", write_noised):
        session = sf_core.Session.start(MODEL, text, SIZE, config, batch=video.batch, noise=NOISE)
        session = session if context is None else session.with_context(context)
        while session.frames < video.frames:
            if switch is not None and session.frames == switch[0]:
                session = session.with_prompt(switch[1])
            session, _ = session.next_chunk()
    return session.latents


CLAMPED = sf_core.RolloutConfig(
    chunk_frames=2, window_frames=6, sink_frames=1, sink_position="clamped", denoising_steps=(1000, 500)
)


@given(videos())
@example(Video(CLAMPED, 14, 2, 2))  # the ring has rolled, and the sink has moved three times
def test_a_rollout_that_exits_at_the_last_step_is_what_inference_makes(video: Video) -> None:
    text = prompt(1, video.batch)
    context = random_latents(video.context, video.batch) if video.context else None
    expected = inference(video, text, context)
    last = len(video.config.denoising_steps) - 1
    made = rollout(MODEL, text, NOISE, video.config, last, video.frames, context, latent_size=SIZE)
    assert relative(made.latents, expected) < 1e-5


def test_a_first_chunk_with_steps_of_its_own_is_what_inference_makes() -> None:
    config = sf_core.RolloutConfig(chunk_frames=1, first_chunk_steps=(1000, 800), denoising_steps=(1000, 700, 400))
    expected = inference(Video(config, 4, 1, 0), prompt(0), None)
    assert relative(roll(MODEL, config, 4).latents, expected) < 1e-5


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_prompt_that_changes_at_the_clip_is_what_inference_makes_of_a_switch(chunk: int) -> None:
    config = replace(TWO_STEPS, chunk_frames=chunk, window_frames=3 * chunk)
    video = Video(config, 8, 2, 0)
    before, after = prompt(1), prompt(2, 2)
    expected = inference(video, before, None, (4, after))
    made = rollout(MODEL, after, NOISE, config, 1, 8, latent_size=SIZE, clip_frames=4, prompt_before=before)
    assert relative(made.latents, expected[:, :, 4:]) < 1e-5
    assert relative(made.latents, inference(video, after, None)[:, :, 4:]) > 1e-3


@pytest.mark.parametrize(("clip", "texts"), [(4, 3), (8, 1), (3, 1)])  # other videos, no room, amid a chunk
def test_a_prompt_that_cannot_change_there_is_refused(clip: int, texts: int) -> None:
    options: dict[str, Any] = {"latent_size": SIZE, "clip_frames": clip, "prompt_before": prompt(1, texts)}
    with pytest.raises(ValueError, match="prompt_before is for"):
        rollout(MODEL, prompt(0, 2), NOISE, TWO_STEPS, 1, 8, **options)


def test_noise_may_come_as_a_tensor_and_the_rest_from_a_source_or_a_generator() -> None:
    first = torch.cat([NOISE(chunk, 0, (1, 4, 2, *SIZE)) for chunk in range(3)], dim=2)
    from_both = roll(MODEL, TWO_STEPS, 6, noise=first, rng=NOISE)
    assert torch.equal(from_both.latents, roll(MODEL, TWO_STEPS, 6).latents)
    by_generator = [roll(MODEL, TWO_STEPS, 6, noise=first, rng=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(by_generator[0].latents, by_generator[1].latents)
    assert not torch.equal(by_generator[0].latents, by_generator[2].latents)


@pytest.mark.parametrize(("first", "window"), [(None, None), (None, 5), (1, None), (1, 4)])
def test_one_teacher_forcing_pass_is_all_cached_passes(first: int | None, window: int | None) -> None:
    """With one denoising step: the flow of each chunk's noise behind the clean chunks, all at once."""
    config = sf_core.RolloutConfig(
        chunk_frames=2, first_chunk_frames=first, window_frames=window, denoising_steps=(1000,), context_noise=60
    )
    frames = 9 if first else 8
    starts = [0, *range(first or 2, frames, 2)]
    shapes = [(1, 4, config.frames_of_block(start), *SIZE) for start in starts]
    first_noise, context_noise = (torch.cat([NOISE(i, k, s) for i, s in enumerate(shapes)], 2) for k in (0, 1))
    schedule = flow_schedule(config.shift)

    def at_once(clean: Tensor) -> Tensor:
        flow = MODEL.predict(first_noise, torch.tensor([1000.0]), prompt(0), 2, first, window, clean, 60.0)
        return schedule.to_x0(first_noise, flow, 1000.0)

    trained = roll(MODEL, config, frames).latents
    assert relative(at_once(schedule.add_noise(trained, context_noise, 60.0)), trained) < 1e-5
    session = sf_core.Session.start(MODEL, prompt(0), SIZE, config, noise=NOISE)
    while session.frames < frames:
        session, _ = session.next_chunk()
    assert relative(at_once(session.latents), session.latents) < 1e-5
    assert relative(trained, session.latents) > 1e-3


# Gradients -------------------------------------------------------------------------------------------------------

Frozen = Callable[[], Tensor]


def exit_passes(model: sf_core.CausalWan, run: Callable[[], Rollout], steps: int) -> tuple[Tensor, list[Frozen]]:
    """The latents, and each chunk's exit pass as a function of the weights alone: its input and its past stay."""
    calls: list[tuple[Any, ...]] = []
    flow_with, schedule = model.flow_with, flow_schedule(5.0)

    def spy(x: Tensor, timestep: Tensor, rotations: Tensor, text: Any, attend: Any) -> Tensor:
        calls.append((x.detach().clone(), timestep, rotations, attend))
        return flow_with(x, timestep, rotations, text, attend)

    with patch.object(model, "flow_with", spy):
        latents = run().latents

    def again(x: Tensor, timestep: Tensor, rotations: Tensor, attend: Any) -> Tensor:
        flow = flow_with(x, timestep, rotations, model.text_keys_values(prompt(0)), attend)
        return schedule.to_x0(x, flow, float(timestep[0, 0]))

    last = calls[steps - 1 :: steps]
    return latents, [lambda call=call: again(*call) for call in last]  # type: ignore[misc]


def slope(model: sf_core.CausalWan, direction: Sequence[Tensor], value: Callable[[], Tensor], step: float) -> float:
    """The central difference of ``value`` along ``direction``."""
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(model.parameters(), direction, strict=True):
                p.add_(sign * step * d)
            values.append(float(value()))
        for p, d in zip(model.parameters(), direction, strict=True):
            p.add_(step * d)
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("name", "frames", "steps"), [("earlier steps", 2, (1000, 750, 500)), ("earlier chunks", 8, (1000,))]
)
def test_the_gradient_is_that_of_the_exit_steps_behind_a_fixed_past(
    name: str, frames: int, steps: tuple[int, ...], checkpointing: bool
) -> None:
    """Against differences of the truncated function; those of the whole one are something else.

    With one chunk the two differ in the earlier steps only, with one step in the earlier chunks' keys and values only.
    Flow and latents are float32 however wide the model is, so the step must not be too small.
    """
    model = trainable().double()
    model.gradient_checkpointing = checkpointing
    config = sf_core.RolloutConfig(chunk_frames=2, denoising_steps=steps)
    latents, frozen = exit_passes(model, lambda: roll(model, config, frames), len(steps))
    assert len(frozen) == frames // 2
    look = random_latents(frames, seed=5).double()
    draw = torch.Generator().manual_seed(1)
    sizes = [(p.shape, p.detach().std(correction=0)) for p in model.parameters()]
    direction = [torch.randn(shape, generator=draw, dtype=torch.float64) * size for shape, size in sizes]
    pairs = zip(gradients((latents.double() * look).sum(), model), direction, strict=True)
    ours = sum(float((g * d).sum()) for g, d in pairs)

    truncated = slope(model, direction, lambda: (torch.cat([f() for f in frozen], 2) * look).sum(), 1e-3)
    whole = slope(model, direction, lambda: (roll(model, config, frames).latents.double() * look).sum(), 1e-3)
    assert abs(ours - truncated) < 1e-4 * abs(truncated)
    assert abs(ours - whole) > 0.1 * abs(whole)


class Passes:
    """Which forward passes of a model ran with a gradient, and over what: each embeds its latents once."""

    def __init__(self, model: sf_core.CausalWan) -> None:
        self.with_gradient: list[bool] = []
        self.inputs: list[Tensor] = []
        model.patch_embedding.register_forward_hook(self._see)

    def _see(self, module: object, args: tuple[Tensor], out: object) -> None:
        self.with_gradient.append(torch.is_grad_enabled())
        self.inputs.append(args[0].detach().clone())


@pytest.mark.parametrize("kv_gradient", ["detached", "straight-through"])
def test_only_the_exit_step_of_chunks_in_the_clip_has_a_gradient(kv_gradient: str) -> None:
    config = sf_core.RolloutConfig(chunk_frames=2, denoising_steps=(1000, 750, 500))
    model = trainable()
    passes = Passes(model)
    made = roll(model, config, 10, clip_frames=5, kv_gradient=kv_gradient, exit_step=[2, 1, 0, 1, 2])
    expected: list[bool] = []
    for chunk, exit_step in enumerate([2, 1, 0, 1, 2]):
        expected += [False] * exit_step + [chunk >= 3] + [False]  # the last one writes the clean keys and values
    assert passes.with_gradient == expected
    in_clip = [bool(gradients(made.latents[:, :, f].sum(), model)[0].any()) for f in range(5)]
    assert in_clip == [False, True, True, True, True]  # frame 5 is the end of a chunk that began before the clip


def test_nothing_has_a_gradient_where_none_is_wanted() -> None:
    model = trainable()
    with torch.no_grad():
        without = roll(model, TWO_STEPS, 6)
    with_one = roll(model, TWO_STEPS, 6)
    assert not without.latents.requires_grad
    assert with_one.latents.requires_grad
    assert torch.equal(without.latents, with_one.latents)
    assert not with_one.detach().latents.requires_grad


@pytest.mark.parametrize("kv_gradient", ["detached", "straight-through"])
@given(video=videos(), seed=st.integers(0, 9))
@example(video=Video(CLAMPED, 14, 2, 2), seed=0)
def test_checkpointing_changes_no_bit_of_a_gradient(kv_gradient: str, video: Video, seed: int) -> None:
    """The case that a cache written in place gets wrong: the second computation would see a later past."""
    model, context = trainable(), random_latents(video.context, video.batch) if video.context else None
    draw = torch.Generator().manual_seed(seed)
    exits = torch.randint(len(video.config.denoising_steps), (video.chunks,), generator=draw).tolist()
    plain, again = (checkpointed_gradients(model, video, context, exits, kv_gradient, on) for on in (False, True))
    assert any(bool(g.any()) for g in plain)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def checkpointed_gradients(
    model: sf_core.CausalWan, video: Video, context: Tensor | None, exits: list[int], kv_gradient: str, on: bool
) -> list[Tensor]:
    model.gradient_checkpointing = on
    made = rollout(
        model,
        prompt(0, video.batch),
        NOISE,
        video.config,
        exits,
        video.frames,
        context,
        kv_gradient=kv_gradient,
        latent_size=SIZE,
    )
    return gradients(made.latents.square().sum(), model)


def test_straight_through_adds_the_gradient_of_earlier_keys_and_changes_no_latent() -> None:
    model = trainable()
    detached, through = (roll(model, TWO_STEPS, 6, kv_gradient=kind) for kind in ("detached", "straight-through"))
    assert torch.equal(detached.latents, through.latents)
    first, last = slice(0, 2), slice(4, 6)
    for frames, same in ((first, True), (last, False)):
        pair = [gradients(made.latents[:, :, frames].square().sum(), model) for made in (detached, through)]
        assert all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) is same


# Its own past, the whole video -------------------------------------------------------------------------------------


class Changed:
    """The noise of one chunk, or of one step of it, is another."""

    def __init__(self, chunk: int, step: int | None = None) -> None:
        self.where = (chunk, step)

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        other = chunk == self.where[0] and self.where[1] in (None, step)
        return sf_core.SeededNoise(4)(chunk, step, shape) if other else NOISE(chunk, step, shape)


@pytest.mark.parametrize("step", [None, 0, 1, 2])
def test_a_chunk_depends_on_what_the_model_made_before_it_and_on_nothing_later(step: int | None) -> None:
    """Step 2 is the noise that the clean chunk is written with: only later chunks see it."""
    usual = roll(MODEL, TWO_STEPS, 8).latents
    changed = roll(MODEL, TWO_STEPS, 8, noise=Changed(1, step)).latents
    same = [torch.equal(a, b) for a, b in zip(usual.split(2, dim=2), changed.split(2, dim=2), strict=True)]
    assert same == [True, step == 2, False, False]


def test_every_pass_is_over_noise_or_over_what_the_model_made() -> None:
    model, schedule = random_model(2), flow_schedule(5.0)
    passes = Passes(model)
    made = roll(model, TWO_STEPS, 6).latents
    seen = list(passes.inputs)
    assert len(seen) == 3 * 3
    for chunk, latents in enumerate(made.split(2, dim=2)):
        noises = [NOISE(chunk, step, tuple(latents.shape)) for step in range(3)]
        guess = roll(model, TWO_STEPS, 2 * chunk + 2, exit_step=[1] * chunk + [0]).latents[:, :, -2:]
        first, second, clean = seen[3 * chunk : 3 * chunk + 3]
        assert torch.equal(first, noises[0])
        assert torch.equal(second, schedule.add_noise(guess, noises[1], TWO_STEPS.timesteps(0)[1]))
        assert torch.equal(clean, schedule.add_noise(latents, noises[2], 0.0))


def pointwise(shift: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A score that sees each number by itself."""
    return lambda noisy, timestep, text: 0.5 * noisy + shift


@pytest.mark.parametrize("judges", ["normaliser", "teacher"])
@pytest.mark.parametrize("kind", [DMD, SiD])
def test_the_loss_is_on_the_whole_video(kind: type[DMD] | type[SiD], judges: str) -> None:
    """What the first chunk's latents are told depends on the last chunk's. Losses by chunk would not see it.

    By the normaliser alone, where the scores look at each number by itself; and by a teacher that sees all frames.
    """
    alone = judges == "normaliser"
    loss = kind(pointwise(0.1), pointwise(0.3)) if alone else kind(MODEL.predict, random_model(2).predict)
    draws: dict[str, Any] = {"timestep": torch.tensor([400]), "noise": random_latents(6, seed=9)}

    def told(last: Tensor) -> Tensor:
        latents = torch.cat([random_latents(4, seed=1), last], dim=2).requires_grad_(True)
        loss.generator_loss(Rollout(latents, None, 500, 250, 2), prompt(0), prompt(1), **draws).value.backward()
        assert latents.grad is not None
        return latents.grad[:, :, :4]

    one, other = told(random_latents(2, seed=2)), told(2 * random_latents(2, seed=2))
    assert relative(one, other) > 1e-3
    if alone and kind is DMD:  # one factor for every element
        ratio = one / other
        assert relative(ratio, ratio.mean().expand_as(ratio)) < 1e-4


def test_all_chunks_are_judged_at_one_noise_level() -> None:
    seen: list[Tensor] = []

    def score(noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        seen.append(timestep)
        return noisy

    made = Rollout(random_latents(6, batch=2), None, 500, 250, 2)
    DMD(score, score).generator_loss(made, prompt(0), prompt(1), rng=torch.Generator().manual_seed(0))
    assert len(seen) == 3
    assert all(timestep.shape == (2,) and torch.equal(timestep, seen[0]) for timestep in seen)


# Exit steps ------------------------------------------------------------------------------------------------------

FOUR_STEPS = sf_core.RolloutConfig(chunk_frames=1, denoising_steps=(1000, 750, 500, 250))


def test_all_chunks_share_one_exit_step_which_the_generator_draws() -> None:
    model = random_model(1)
    passes = Passes(model)
    found = set()
    for seed in range(24):
        passes.inputs.clear()
        rng = torch.Generator().manual_seed(seed)
        made = roll(model, FOUR_STEPS, 3, exit_step=None, rng=rng)
        assert isinstance(made.exit_step, int)
        found.add(made.exit_step)
        assert len(passes.inputs) == 3 * (made.exit_step + 2)
        again = roll(model, FOUR_STEPS, 3, exit_step=None, rng=torch.Generator().manual_seed(seed))
        assert again.exit_step == made.exit_step
        assert torch.equal(again.latents, made.latents)
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize(("exit_step", "between"), [(0, (1000, 750)), (2, (500, 250)), (3, (250, 0))])
def test_the_timesteps_of_the_exit_step_are_nominal_ones(exit_step: int, between: tuple[int, int]) -> None:
    made = roll(random_model(1), FOUR_STEPS, 2, exit_step=exit_step)
    assert (made.timestep_from, made.timestep_to) == between
    assert made.exit_step == exit_step


def test_chunks_may_leave_at_steps_of_their_own() -> None:
    model = random_model(1)
    mixed = roll(model, FOUR_STEPS, 3, exit_step=[3, 0, 1])
    assert mixed.exit_step == [3, 0, 1]
    assert mixed.timestep_from is None
    assert mixed.timestep_to is None
    shared, listed = (roll(model, FOUR_STEPS, 3, exit_step=step) for step in (2, [2, 2, 2]))
    assert torch.equal(shared.latents, listed.latents)
    assert listed.timestep_from == 500
    first = roll(model, FOUR_STEPS, 3, exit_step=3)
    assert torch.equal(mixed.latents[:, :, 0], first.latents[:, :, 0])


def test_a_rollout_leaves_torchs_own_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    roll(MODEL, TWO_STEPS, 4, exit_step=None, rng=torch.Generator().manual_seed(0))
    roll(MODEL, TWO_STEPS, 4, noise=random_latents(4), exit_step=None, rng=torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)


# Longer than the clip ----------------------------------------------------------------------------------------------


def test_a_longer_rollout_gives_its_last_frames_as_they_are_without_a_vae() -> None:
    whole = roll(MODEL, TWO_STEPS, 10, clip_frames=10)
    clip = roll(MODEL, TWO_STEPS, 10, clip_frames=6)
    assert whole.gradient_mask is None
    assert torch.equal(clip.latents, whole.latents[:, :, 4:])
    assert clip.gradient_mask is not None
    assert clip.gradient_mask.dtype == torch.bool
    assert clip.gradient_mask.shape == clip.latents.shape
    assert clip.gradient_mask[0, 0, :, 0, 0].tolist() == [False, False, True, True, True, True]
    assert torch.equal(clip.gradient_mask, clip.gradient_mask[:1, :1, :, :1, :1].expand_as(clip.latents))


def test_no_loss_looks_at_what_was_encoded_anew() -> None:
    model = trainable()
    clip = roll(model, TWO_STEPS, 10, clip_frames=6)
    loss = DMD(pointwise(0.1), pointwise(0.3))
    value = loss.generator_loss(clip, prompt(0), prompt(1), torch.tensor([300]), random_latents(6)).value
    told = torch.autograd.grad(value, clip.latents, retain_graph=True)[0]
    assert not told[:, :, :2].any()
    assert told[:, :, 2:].any()
    carries = [bool(gradients(clip.latents[:, :, frame].sum(), model)[0].any()) for frame in range(6)]
    assert carries == [False, True, True, True, True, True]


def test_the_clips_first_latent_is_the_videos_frame_there_as_an_image() -> None:
    """A real VAE, whose first latent stands for one frame and the others for four."""
    vae = sf_core.load_vae(PARITY / "weights_vae.safetensors")
    model = sf_core.load_model(PARITY / "weights_train_generator.safetensors", num_heads=2, text_len=8)
    text = torch.randn(1, 8, model.arch.text_dim, generator=torch.Generator().manual_seed(0))
    config = sf_core.RolloutConfig(chunk_frames=3, denoising_steps=(1000,))
    whole, clip = (
        rollout(model.requires_grad_(True), text, NOISE, config, 0, 15, clip_frames=n, vae=vae, latent_size=(4, 6))
        for n in (15, 6)
    )
    frame = vae.decode(whole.latents.detach())[:, 36:37]  # of latent 9: frames 33 to 36
    assert relative(clip.latents[:, :, :1].detach(), vae.encode(frame)) < 1e-5
    assert torch.equal(clip.latents[:, :, 1:], whole.latents[:, :, 10:])
    assert not gradients(clip.latents[:, :, 0].sum(), model)[0].any()


def test_the_vae_is_asked_for_one_latent_behind_no_more_history_than_it_needs() -> None:
    asked: dict[str, Any] = {}

    class Decoder:
        history = 3

        def __call__(self, latents: Tensor, at: int, history: Tensor) -> Tensor:
            asked.update(latents=latents, at=at, history=history)
            return torch.arange(2.0).view(1, 2, 1, 1, 1).expand(1, 2, 8, 8, 3)

    class Stub:
        def stream_decoder(self) -> Decoder:
            return Decoder()

        def encode(self, frames: Tensor) -> Tensor:
            asked["frames"] = frames
            return torch.full((1, 4, 1, *SIZE), 7.0)

    whole = roll(MODEL, TWO_STEPS, 10).latents
    clip = roll(MODEL, TWO_STEPS, 10, clip_frames=4, vae=cast(VideoVAE, Stub()))
    assert asked["at"] == 6
    assert torch.equal(asked["latents"], whole[:, :, 6:7])
    assert torch.equal(asked["history"], whole[:, :, 3:6])
    assert asked["frames"].shape == (1, 1, 8, 8, 3)
    assert asked["frames"].eq(1).all()
    assert clip.latents[:, :, 0].eq(7).all()


# What does not fit -------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"frames": 7}, "7 latent frames do not cut.*first block of 2.*6 or 8"),
    ({"frames": 1}, "1 latent frames.*nearest counts that do: 2"),
    ({"context": random_latents(3)}, "3 latent frames of context.*2 or 4"),
    ({"context": random_latents(6)}, "frames is 6, of which 6 are context.*raise frames"),
    (
        {"noise": random_latents(4, batch=2), "context": random_latents(2, batch=3)},
        r"context has the shape \[3, 4, 2, 4, 4\]; expected \[2, 4, 2, 4, 4\]",
    ),
    ({"context": random_latents(2)[:, :3]}, r"context has the shape \[1, 3, 2, 4, 4\]; expected"),
    ({"noise": random_latents(5)}, r"noise has the shape \[1, 4, 5, 4, 4\]; expected \[1, 4, 6, 4, 4\]: 6 latent"),
    ({"noise": random_latents(6), "context": random_latents(2)}, r"expected \[1, 4, 4, 4, 4\].*2 are context"),
    ({"noise": random_latents(6)[:, :2]}, r"noise has the shape \[1, 2, 6, 4, 4\]"),
    ({"noise": random_latents(6)[0]}, r"noise has the shape \[4, 6, 4, 4\]"),
    (
        {"prompt": prompt(0, batch=2), "noise": random_latents(6, batch=3)},
        "prompt embeddings for 2 videos, but the batch is 3; expected 1 or 3",
    ),
    ({"noise": lambda chunk, step, shape: torch.zeros(2)}, r"noise source gave \[2\] for chunk 0; expected \["),
    ({"exit_step": 2}, "exit_step is 2; expected an index below 2, or 3 of them"),
    ({"exit_step": -1}, "exit_step is -1; expected an index below 2"),
    ({"exit_step": [0, 1]}, r"exit_step is \[0, 1\].*3 of them, one a chunk"),
    ({"exit_step": [0, 1, 2]}, r"exit_step is \[0, 1, 2\]"),
    ({"kv_gradient": "through"}, "kv_gradient is 'through'; expected one of detached, straight-through"),
    ({"latent_size": None}, "latent_size is missing"),
    ({"latent_size": (5, 4)}, "nearest that does is 4 x 4"),
    ({"prompt": torch.zeros(1, 5, 9)}, r"reads \[batch, rows, 8\]"),
    ({"prompt": torch.zeros(1, 7, 8)}, "shorten it"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD, ids=itertools.count())
def test_what_does_not_fit_is_refused_with_what_would(wrong: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"prompt": prompt(0), "noise": NOISE, "frames": 6, "exit_step": 0, "latent_size": SIZE}
    with pytest.raises(ValueError, match=message):
        rollout(MODEL, config=TWO_STEPS, **usual | wrong)


# Forced rollouts ------------------------------------------------------------------------------------------------------

FORCED = sf_core.RolloutConfig(chunk_frames=2, window_frames=4, denoising_steps=(1000, 750, 500))


def test_teacher_forcing_predicts_each_chunk_as_inference_would_behind_given_ones() -> None:
    """One pass over a given video is, chunk by chunk, the first denoising step behind the chunks before it."""
    config = replace(FORCED, denoising_steps=(1000,))
    latents, noise = random_latents(6, seed=1), random_latents(6, seed=2)
    made = forced_rollout(MODEL, prompt(0), latents, config, "teacher-forcing", noise).latents
    for start in (2, 4):
        options: dict[str, Any] = {
            "context": latents[:, :, :start],
            "noise": noise[:, :, start : start + 2],
            "frames": start + 2,
        }
        behind = roll(MODEL, config, **options, rng=torch.Generator()).latents[:, :, start:]
        assert relative(made[:, :, start : start + 2], behind) < 1e-5


@pytest.mark.parametrize("by", ["teacher-forcing", "diffusion-forcing"])
def test_a_forced_rollout_never_shows_a_chunk_to_the_next(by: Any) -> None:
    """What a chunk becomes does not depend on what those before it became, only on the given video and its noise."""
    latents = random_latents(6, seed=1)

    def made(noise: Tensor) -> Tensor:
        return forced_rollout(MODEL, prompt(0), latents, FORCED, by, noise, torch.Generator().manual_seed(5)).latents

    noise = random_latents(6, seed=2)
    other = noise.clone()
    other[:, :, :2] += 1
    same = torch.equal(made(noise)[:, :, 2:], made(other)[:, :, 2:])
    assert same == (by == "teacher-forcing")  # diffusion forcing shows the noisy chunk itself
    assert not torch.equal(made(noise)[:, :, :2], made(other)[:, :, :2])


def test_a_forced_rollout_has_one_step_a_chunk_gradient_everywhere_and_repeats() -> None:
    model = trainable()
    latents = random_latents(6, seed=1)
    asked: list[Tensor] = []
    predict = model.predict

    def seen(x: Tensor, timestep: Tensor, *rest: Any) -> Tensor:
        asked.append(timestep)
        return predict(x, timestep, *rest)

    with patch.object(model, "predict", seen):
        runs = [
            forced_rollout(
                model, prompt(0), latents, FORCED, "diffusion-forcing", rng=torch.Generator().manual_seed(seed)
            )
            for seed in (*range(12), 0)
        ]
    assert torch.equal(runs[0].latents, runs[-1].latents)
    steps = torch.stack(asked)[:, 0]  # [runs, F]
    assert torch.equal(steps[:, ::2], steps[:, 1::2])
    assert set(steps.flatten().tolist()) == set(FORCED.timesteps(0))
    (found,) = torch.autograd.grad(runs[0].latents.square().sum(), [model.head.head.weight])
    assert found.abs().sum() > 0
    assert runs[0].gradient_mask is None
    assert runs[0].timestep_from is runs[0].timestep_to is None
