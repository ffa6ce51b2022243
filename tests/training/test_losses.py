"""What the losses promise beyond the golden numbers: perfect models, draws, bounds, whom the gradient reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sf_core
from sf_core.model.sequence_forward import SequenceForward
from sf_core.schedule import TRAIN_STEPS, flow_schedule
from sf_core.training import (
    DMD,
    GAN,
    DiffusionForcing,
    Discriminator,
    FlowMatching,
    Loss,
    NoiseLevels,
    ODERegression,
    Rollout,
    SiD,
    TeacherForcing,
    ode_trajectory,
)
from sf_core.training.losses.flow_matching import training_weights
from sf_core.training.losses.score_distillation import ScoreModel, noise_or_random
from tests.helpers import SIZE, prompt, random_latents, random_model, relative

CHUNKS = sf_core.RolloutConfig(chunk_frames=2, first_chunk_frames=1, window_frames=5)
FRAMES = 7  # one, and three chunks of two
MATCHINGS: list[FlowMatching] = [
    FlowMatching(),
    DiffusionForcing(config=CHUNKS),
    TeacherForcing(config=CHUNKS),
    TeacherForcing(config=CHUNKS, context_noise=50),
]
LATENTS, NOISE = random_latents(FRAMES, batch=2, seed=1), random_latents(FRAMES, batch=2, seed=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Predictor:
    """Stands for a model: gives whatever ``flow`` makes of the noisy latents and the timestep, and notes the calls."""

    flow: Callable[[Tensor, Tensor], Tensor]
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def predict(self, noisy: Tensor, timestep: Tensor, *more: Any) -> Tensor:
        self.calls.append((noisy, timestep, *more))
        return self.flow(noisy, timestep)

    @property
    def model(self) -> SequenceForward:
        return cast(SequenceForward, self)


def video(latents: Tensor = LATENTS, grad: bool = True) -> Rollout:
    return Rollout(latents.clone().requires_grad_(grad), None, 500, 250, 2)


HALF = Predictor(lambda noisy, timestep: 0.5 * noisy).model


# Flow matching ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_model_that_predicts_the_flow_has_no_loss(matching: FlowMatching) -> None:
    perfect = Predictor(lambda noisy, timestep: NOISE - LATENTS)
    assert float(matching.loss(perfect.model, LATENTS, prompt(0), noise=NOISE, rng=seeded()).value) == 0


@pytest.mark.parametrize("matching", MATCHINGS)
def test_an_error_counts_by_its_square_and_the_weight_of_its_timestep(matching: FlowMatching) -> None:
    """The flow is wrong by the number of the frame."""
    wrong = torch.arange(1.0, FRAMES + 1).view(1, 1, FRAMES, 1, 1)
    off = Predictor(lambda noisy, timestep: NOISE - LATENTS + wrong)
    loss = matching.loss(off.model, LATENTS, prompt(0), noise=NOISE, rng=seeded())
    timestep = off.calls[0][1]
    weights = training_weights(matching.schedule, timestep if timestep.ndim == 2 else timestep.unsqueeze(1))
    expected = (weights * wrong.flatten().square()).expand(2, FRAMES).mean()
    assert float(loss.value) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss.logs["timestep"]) == pytest.approx(float(timestep.mean()))


def test_weights_are_a_bell_of_mean_one_that_ends_at_nothing() -> None:
    schedule = flow_schedule(5.0)
    weights = training_weights(schedule, schedule.timesteps)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights.min()) == 0
    assert abs(float(schedule.timesteps[weights.argmax()]) - 500) < 5
    off = Predictor(lambda noisy, timestep: NOISE - LATENTS + 2)
    unweighted = FlowMatching(weighted=False).loss(off.model, LATENTS, prompt(0), noise=NOISE, rng=seeded())
    assert float(unweighted.value) == pytest.approx(4)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_model_is_shown_the_latents_at_the_noise_level_it_is_told(matching: FlowMatching) -> None:
    seen = Predictor(lambda noisy, timestep: noisy)
    matching.loss(seen.model, LATENTS, prompt(0), noise=NOISE, rng=seeded())
    noisy, timestep, text, *more = seen.calls[0]
    sigma = timestep.reshape(2, 1, -1, 1, 1) / TRAIN_STEPS
    assert relative(noisy, (1 - sigma) * LATENTS + sigma * NOISE) < 1e-6
    assert torch.equal(text, prompt(0))
    assert more[:3] == ([2, 1, 5] if isinstance(matching, DiffusionForcing) else [])


@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([None, 1, 2]), st.integers(4, 9))
def test_a_chunk_has_one_noise_level_and_others_have_others(
    seed: int, chunk: int, first: int | None, frames: int
) -> None:
    config = sf_core.RolloutConfig(chunk_frames=chunk, first_chunk_frames=first)
    seen = Predictor(lambda noisy, timestep: noisy)
    latents = random_latents(frames, batch=2)
    DiffusionForcing(config=config).loss(seen.model, latents, prompt(0), rng=seeded(seed))
    timestep = seen.calls[0][1]
    assert timestep.shape == (2, frames)
    levels = set()
    start = 0
    while start < frames:
        end = start + config.frames_of_block(start)
        assert (timestep[:, start:end] == timestep[:, start : start + 1]).all()
        levels |= {(row, float(timestep[row, start])) for row in range(2)}
        start = end
    assert len({level for _, level in levels}) > 1


def test_levels_are_drawn_one_a_chunk_or_one_a_video() -> None:
    seen = Predictor(lambda noisy, timestep: noisy)
    for matching in MATCHINGS[:2]:
        matching.loss(seen.model, LATENTS, prompt(0), rng=seeded(3))
    assert [call[1].unique().numel() for call in seen.calls] == [2, 8]


def test_integers_are_indices_into_the_table_and_floats_are_timesteps() -> None:
    model, table = random_model(1), flow_schedule(5.0).timesteps
    for matching, index in (
        (MATCHINGS[0], torch.tensor([0, 700])),
        (MATCHINGS[1], torch.tensor([[10, 400, 400, 999, 999, 0, 0]]).repeat(2, 1)),
    ):
        by_index, by_level = (matching.loss(model, LATENTS, prompt(0), t, NOISE).value for t in (index, table[index]))
        assert torch.equal(by_index, by_level)
        other = matching.loss(model, LATENTS, prompt(0), index.float(), NOISE).value
        assert not torch.equal(by_index, other)


def test_teacher_forcing_shows_clean_chunks_at_timestep_zero_or_hardly_noisy_ones() -> None:
    seen = Predictor(lambda noisy, timestep: noisy)
    TeacherForcing(config=CHUNKS).loss(seen.model, LATENTS, prompt(0), rng=seeded())
    clean, timestep = seen.calls[0][6:]
    assert torch.equal(clean, LATENTS)
    assert not timestep.any()
    matching = TeacherForcing(config=CHUNKS, context_noise=50)
    matching.loss(seen.model, LATENTS, prompt(0), noise=NOISE, rng=seeded())
    clean, timestep = seen.calls[1][6:]
    assert timestep.shape == (2, FRAMES)
    assert timestep.max() <= flow_schedule(5.0).timesteps[-50]
    assert timestep.min() > 0
    assert torch.equal(clean, matching.schedule.add_noise(LATENTS, NOISE, timestep))


def test_a_causal_models_loss_looks_at_nothing_later() -> None:
    """The error of a chunk does not change with the latents of the next; a bidirectional model's does."""
    model, later = random_model(2), LATENTS.clone()
    later[:, :, 5:] += 1
    level = torch.full((2, FRAMES), 600.0)
    for matching in MATCHINGS[:3]:
        causal = isinstance(matching, DiffusionForcing)
        flows: list[Tensor] = []
        spy = SimpleNamespace(predict=lambda *args, flows=flows: flows.append(model.predict(*args)) or flows[-1])
        for latents in (LATENTS, later):
            matching.loss(cast(SequenceForward, spy), latents, prompt(0), level if causal else level[:, 0], NOISE)
        before, after = (flow[:, :, :5] for flow in flows)
        assert (relative(before, after) < 1e-6) is causal


# The causal start ------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([(1000, 750, 500, 250), (1000, 500), (1000,), (900, 50), (500, 0)]),
    st.booleans(),
    st.integers(3, 30),
)
def test_a_straight_flow_ends_at_its_video_and_is_kept_at_the_denoising_sigmas(
    denoising: tuple[int, ...], warp: bool, steps: int
) -> None:
    config = sf_core.RolloutConfig(denoising_steps=denoising, warp_steps=warp)
    states = ode_trajectory(lambda x, t, text: NOISE - LATENTS, prompt(0), prompt(1), NOISE, config, steps)
    assert states.shape == (2, len(denoising) + 1, *NOISE.shape[1:])
    sigmas = [timestep / TRAIN_STEPS for timestep in config.timesteps(1)] + [0.0]
    for index, sigma in enumerate(sigmas):
        assert relative(states[:, index], (1 - sigma) * LATENTS + sigma * NOISE) < 1e-5


def test_the_teacher_is_asked_down_its_sigmas_with_guidance() -> None:
    asked: list[float] = []

    def teacher(x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        assert timestep.shape == (2,)
        asked.append(float(timestep[0]))
        return torch.full_like(x, 3.0 if text is positive else 1.0)

    positive, negative = prompt(0), prompt(1)
    config = sf_core.RolloutConfig(denoising_steps=(1000,))
    states = ode_trajectory(teacher, positive, negative, NOISE, config, steps=10, shift=1.0, guidance=2.0)
    assert asked == pytest.approx([level for i in range(10) for level in [1000 - 100 * i] * 2], abs=1e-3)
    assert relative(states[:, 1], NOISE - (3 + 2 * (3 - 1))) < 1e-5
    asked.clear()
    states = ode_trajectory(teacher, positive, negative, NOISE, config, steps=10, shift=1.0, guidance=0.0)
    assert len(asked) == 10
    assert relative(states[:, 1], NOISE - 3) < 1e-5


def trajectories(config: sf_core.RolloutConfig) -> Tensor:
    return ode_trajectory(lambda x, t, text: NOISE - LATENTS, prompt(0), prompt(1), NOISE, config)


def straight(noisy: Tensor, timestep: Tensor) -> Tensor:
    """The flow from where a trajectory stands to its end, exactly as the loss reads it."""
    return flow_schedule(5.0).to_flow(noisy, LATENTS, timestep)


@given(st.integers(0, 1000))
def test_a_student_that_lands_where_the_teacher_did_has_no_loss(seed: int) -> None:
    perfect = Predictor(straight)
    loss = ODERegression(CHUNKS).loss(perfect.model, trajectories(CHUNKS), prompt(0), rng=seeded(seed))
    assert float(loss.value) < 1e-10


def test_a_clean_chunk_is_only_a_past_and_its_error_does_not_count() -> None:
    states, steps = trajectories(CHUNKS), len(CHUNKS.denoising_steps)
    weight = torch.ones((), requires_grad=True)
    poor = Predictor(lambda noisy, timestep: weight * noisy)
    everything_clean = torch.full((2, FRAMES), steps)
    loss = ODERegression(CHUNKS).loss(poor.model, states, prompt(0), everything_clean).value
    assert float(loss.detach()) == 0
    loss.backward()
    assert weight.grad is not None
    assert float(weight.grad) == 0

    index = torch.tensor([[steps, 0, 0, steps, steps, 2, 2]]).repeat(2, 1)
    clean = (index == steps)[:, None, :, None, None]
    for beside, expected in ((0, 0), (2, 4)):

        def flow(noisy: Tensor, timestep: Tensor, beside: float = beside) -> Tensor:
            landing = flow_schedule(5.0).to_flow(noisy, LATENTS + beside, timestep)
            return torch.where(clean, 9.0, landing)

        value = ODERegression(CHUNKS).loss(Predictor(flow).model, states, prompt(0), index).value
        assert float(value) == pytest.approx(expected, rel=1e-4, abs=1e-10)


def test_each_chunk_is_given_its_state_at_that_states_timestep() -> None:
    states, seen = trajectories(CHUNKS), Predictor(straight)
    index = torch.tensor([[4, 0, 0, 1, 1, 3, 3], [2, 3, 3, 4, 4, 0, 0]])
    ODERegression(CHUNKS).loss(seen.model, states, prompt(0), index)
    noisy, timestep, _, *chunks = seen.calls[0]
    assert chunks == [2, 1, 5]
    levels = torch.tensor([*CHUNKS.timesteps(1), 0.0])
    assert torch.equal(timestep, levels[index])
    for row in range(2):
        for frame in range(FRAMES):
            assert torch.equal(noisy[row, :, frame], states[row, index[row, frame], :, frame])


def test_a_trajectory_of_another_number_of_steps_is_refused() -> None:
    states, regression = trajectories(CHUNKS), ODERegression(sf_core.RolloutConfig(denoising_steps=(1000, 500)))
    with pytest.raises(ValueError, match="5 states a trajectory; expected 2 denoising steps and the end"):
        regression.loss(HALF, states, prompt(0))


# Noise levels ----------------------------------------------------------------------------------------------------


def many(exit_from: int | None = 500, exit_to: int | None = 250) -> Rollout:
    return Rollout(torch.zeros(2000, 1, 1, 1, 1), None, exit_from, exit_to, 2)


def test_noise_levels_are_drawn_over_all_timesteps_warped_and_bounded() -> None:
    drawn_levels = NoiseLevels(5.0).timestep(many(), None, seeded())
    assert drawn_levels.shape == (2000,)
    assert float(drawn_levels.min()) == 20
    assert float(drawn_levels.max()) == 980
    even = NoiseLevels(1.0, bounds=(0, 1000)).timestep(many(), None, seeded())
    assert abs(float(even.mean()) - 500) < 20
    assert relative(drawn_levels, (5 * even / (1000 + 4 * even) * 1000).clamp(20, 980)) < 1e-6


@pytest.mark.parametrize(("shift", "inside"), [(1.0, (250, 500)), (5.0, (625, 833.4))])
def test_a_schedule_keeps_the_level_between_the_exit_steps_own(shift: float, inside: tuple[float, float]) -> None:
    for at_least, at_most in ((True, False), (False, True), (True, True)):
        levels = NoiseLevels(shift, ts_schedule=at_least, ts_schedule_max=at_most).timestep(many(), None, seeded())
        assert (float(levels.min()) >= inside[0]) is at_least
        assert (float(levels.max()) <= inside[1]) is at_most


def test_chunks_that_left_at_different_steps_bound_nothing() -> None:
    scheduled = NoiseLevels(ts_schedule=True, ts_schedule_max=True).timestep(many(None, None), None, seeded())
    assert torch.equal(scheduled, NoiseLevels().timestep(many(), None, seeded()))


def test_a_given_integer_is_the_draw_and_a_given_float_the_level() -> None:
    levels, made = NoiseLevels(5.0), video()
    assert levels.timestep(made, torch.tensor([1, 500]), None).tolist() == pytest.approx([20, 5000 / 6])
    assert levels.timestep(made, torch.tensor([1.0, 999.0]), None).tolist() == [1, 999]
    columns = torch.tensor([[500, 3, 3], [250, 4, 4]])
    assert levels.timestep(made, columns, None).tolist() == pytest.approx([5000 / 6, 625])
    assert levels.timestep(made, torch.tensor(500.0), None).tolist() == [500, 500]


# The distribution losses -----------------------------------------------------------------------------------------


def sees(x0: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A score to which every clean number is ``x0``, under any prompt."""

    def flow(noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return flow_schedule(5.0).to_flow(noisy, torch.full_like(noisy, x0), timestep)

    return flow


def test_the_dmd_gradient_is_the_difference_of_the_scores_over_the_distance_to_the_real_one() -> None:
    made = video()
    DMD(sees(0.25), sees(0.75), score_shift=None).generator_loss(
        made, prompt(0), prompt(1), torch.tensor([400.0]).expand(2), NOISE
    ).value.backward()
    distance = (LATENTS - 0.25).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    expected = (0.5 / distance / LATENTS.numel()).expand_as(LATENTS)
    assert made.latents.grad is not None
    assert relative(made.latents.grad, expected) < 1e-4


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_sid_is_the_scores_difference_times_how_far_the_video_is_off(alpha: float) -> None:
    """With scores that do not move with the video, the gradient is the difference over the distance alone."""
    made = video()
    loss = SiD(sees(0.25), sees(0.75), score_shift=None, alpha=alpha)
    value = loss.generator_loss(made, prompt(0), prompt(1), torch.tensor([400.0]).expand(2), NOISE).value
    value.backward()
    distance = (LATENTS - 0.25).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    expected = (-0.5 * ((0.25 - LATENTS) - alpha * -0.5) / distance).mean()
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert made.latents.grad is not None
    assert relative(made.latents.grad, (0.5 / distance / LATENTS.numel()).expand_as(LATENTS)) < 1e-4


def test_a_video_that_both_scores_agree_on_is_left_as_it_is() -> None:
    for loss in (DMD(sees(0.5), sees(0.5)), SiD(sees(0.5), sees(0.5))):
        made = video()
        value = loss.generator_loss(made, prompt(0), prompt(1), rng=seeded()).value
        value.backward()
        assert float(value.detach()) == pytest.approx(0, abs=1e-12)
        assert made.latents.grad is not None
        assert made.latents.grad.abs().max() * LATENTS.numel() < 1e-5


def test_the_critics_loss_of_a_critic_that_knows_the_video_is_nothing() -> None:
    perfect = lambda noisy, timestep, text: flow_schedule(5.0).to_flow(noisy, LATENTS, timestep)  # noqa: E731
    for loss in (DMD(perfect, perfect, score_shift=None), SiD(perfect, perfect, score_shift=None)):
        assert float(loss.critic_loss(video(), prompt(0), rng=seeded()).value) < 1e-8


def test_guidance_goes_on_beyond_the_prompts_own_score() -> None:
    positive, negative = prompt(0), prompt(1)

    def real(noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return sees(0.5 if text is positive else 0.25)(noisy, timestep, text)

    made, plain = video(), video()
    given_draws: Any = {"timestep": torch.tensor([300.0, 300.0]), "noise": NOISE}
    guided = DMD(real, sees(0), guidance=2.0, score_shift=None)
    guided.generator_loss(made, positive, negative, **given_draws).value.backward()
    by_hand = DMD(sees(0.5 + 2 * 0.25), sees(0), guidance=0.0, score_shift=None)
    by_hand.generator_loss(plain, positive, negative, **given_draws).value.backward()
    assert made.latents.grad is not None
    assert plain.latents.grad is not None
    assert relative(made.latents.grad, plain.latents.grad) < 1e-4


def models(grad: bool) -> tuple[sf_core.CausalWan, sf_core.CausalWan]:
    return random_model(1, seed=1).requires_grad_(grad), random_model(1, seed=2).requires_grad_(grad)


def untouched(*modules: torch.nn.Module) -> bool:
    return all(p.grad is None for module in modules for p in module.parameters())


@pytest.mark.parametrize("grad", [False, True])
def test_dmd_leaves_no_gradient_in_the_scores_even_if_they_want_one(grad: bool) -> None:
    real, fake = models(grad)
    made = video()
    DMD(real.predict, fake.predict).generator_loss(made, prompt(0), prompt(1), rng=seeded()).value.backward()
    assert untouched(real, fake)
    assert made.latents.grad is not None
    assert made.latents.grad.any()


def test_sid_goes_through_frozen_scores_to_the_video() -> None:
    """Not only past them: with the scores' own derivatives cut, the gradient is another."""
    real, fake = models(False)

    def cut(model: sf_core.CausalWan) -> ScoreModel:
        return lambda *args: model.predict(*args).detach()

    found = []
    for loss in (SiD(real.predict, fake.predict), SiD(cut(real), cut(fake))):
        made = video()
        loss.generator_loss(made, prompt(0), prompt(1), rng=seeded()).value.backward()
        assert made.latents.grad is not None
        found.append(made.latents.grad)
    assert untouched(real, fake)
    assert relative(*found) > 1e-3


@pytest.mark.parametrize("kind", [DMD, SiD])
def test_the_critics_loss_trains_the_critic_alone(kind: type[DMD] | type[SiD]) -> None:
    real, fake = models(True)
    made = video()
    kind(real.predict, fake.predict).critic_loss(made, prompt(0), rng=seeded()).value.backward()
    assert made.latents.grad is None
    assert untouched(real)
    assert all(p.grad is not None for p in fake.parameters())


# The GAN ---------------------------------------------------------------------------------------------------------

REAL = random_latents(FRAMES, batch=2, seed=3)


def discriminator(grad: bool) -> Discriminator:
    return Discriminator(random_model(2), ffn_dim=32, hidden=16).requires_grad_(grad)


@pytest.mark.parametrize("relativistic", [False, True])
def test_the_gans_generator_loss_leaves_a_frozen_discriminator_alone(relativistic: bool) -> None:
    judge, made = discriminator(False), video()
    loss = GAN(judge, relativistic=relativistic).generator_loss(made, prompt(0), rng=seeded(), real=REAL)
    loss.value.backward()
    assert untouched(judge)
    assert made.latents.grad is not None
    assert made.latents.grad.any()


def test_the_discriminators_loss_leaves_the_video_alone() -> None:
    judge, made = discriminator(True), video()
    loss = GAN(judge, r1_weight=1.0, r2_weight=1.0).critic_loss(made, prompt(0), rng=seeded(), real=REAL)
    loss.value.backward()
    assert made.latents.grad is None
    assert any(p.grad is not None and p.grad.any() for p in judge.parameters())
    assert {"gan_critic_loss", "real_logit", "made_logit", "r1", "r2"} == set(loss.logs)
    assert not any(value.requires_grad for value in loss.logs.values())


def test_the_gans_losses_are_softplus_of_what_the_judge_says() -> None:
    def says(noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return torch.tensor([[-1.0], [-1.0], [2.0], [2.0]])  # of the made ones, then of the real ones

    def softplus(x: float) -> float:
        return float(torch.nn.functional.softplus(torch.tensor(float(x))))

    plain, paired = (GAN(says, relativistic=on, generator_weight=0.5, discriminator_weight=2) for on in (False, True))
    arguments: Any = {"rng": seeded(), "real": REAL}
    assert float(plain.generator_loss(video(), prompt(0), **arguments).value) == pytest.approx(0.5 * softplus(1))
    assert float(paired.generator_loss(video(), prompt(0), **arguments).value) == pytest.approx(0.5 * softplus(3))
    critic = 2 * (softplus(-1) + softplus(-2))
    assert float(plain.critic_loss(video(), prompt(0), **arguments).value) == pytest.approx(critic)
    assert float(paired.critic_loss(video(), prompt(0), **arguments).value) == pytest.approx(2 * softplus(-3))


def test_real_videos_of_another_size_are_refused() -> None:
    gan = GAN(discriminator(False))
    for loss in (gan.generator_loss, gan.critic_loss):
        with pytest.raises(ValueError, match=r"real latents have the shape \[2, 4, 6, 4, 4\], the rollout \[2, 4, 7"):
            loss(video(), prompt(0), rng=seeded(), real=REAL[:, :, :6])


@pytest.mark.parametrize("layers", [(0, 2), (-1, 1), (1, 0), (1, 1)])
def test_a_discriminator_looks_after_blocks_that_exist(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising indices of blocks, 0 to 1"):
        Discriminator(random_model(2), layers=layers)


# Draws -----------------------------------------------------------------------------------------------------------


def zero(noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    return torch.zeros_like(noisy)


def half(noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    return 0.5 * noisy


def logit(noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    return noisy.mean(dim=(1, 2, 3, 4)).unsqueeze(1)


def matching_loss(matching: FlowMatching) -> Callable[[Tensor, torch.Generator], Loss]:
    return lambda x, rng: matching.loss(HALF, x, prompt(0), rng=rng)


def states_of(x: Tensor) -> Tensor:
    return torch.stack([x] * 5, dim=1)


EVERY: dict[str, Callable[[Tensor, torch.Generator], Loss]] = {
    "flow matching": matching_loss(MATCHINGS[0]),
    "diffusion forcing": matching_loss(MATCHINGS[1]),
    "teacher forcing": matching_loss(MATCHINGS[3]),
    "ode regression": lambda x, rng: ODERegression(CHUNKS).loss(HALF, states_of(x), prompt(0), rng=rng),
    "dmd": lambda x, rng: DMD(zero, half).generator_loss(video(x), prompt(0), prompt(1), rng=rng),
    "dmd critic": lambda x, rng: DMD(zero, zero).critic_loss(video(x), prompt(0), rng=rng),
    "sid": lambda x, rng: SiD(zero, half).generator_loss(video(x), prompt(0), prompt(1), rng=rng),
    "gan": lambda x, rng: GAN(logit).generator_loss(video(x), prompt(0), rng=rng, real=2 * x),
    "gan critic": lambda x, rng: GAN(logit, r1_weight=1, r2_weight=1).critic_loss(
        video(x), prompt(0), rng=rng, real=2 * x
    ),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_loss_is_drawn_from_its_generator_and_from_nothing_else(name: str) -> None:
    values, state = [], torch.random.get_rng_state()
    try:
        for own, other in ((1, 5), (1, 6), (2, 6)):
            torch.manual_seed(other)
            before = torch.random.get_rng_state()
            values.append(float(EVERY[name](LATENTS, seeded(own)).value.detach()))
            assert torch.equal(torch.random.get_rng_state(), before)
    finally:
        torch.random.set_rng_state(state)
    assert values[0] == values[1]
    assert values[0] != values[2]


@pytest.mark.parametrize("name", EVERY)
def test_the_draws_are_the_same_whatever_the_device(name: str) -> None:
    """Tensors without data stand for an accelerator: what is drawn comes from the CPU all the same."""
    used = []
    for device in ("cpu", "meta"):
        rng = seeded()
        loss = EVERY[name](LATENTS.to(device), rng)
        assert loss.value.device.type == device
        used.append(rng.get_state())
    assert torch.equal(used[0], used[1])


def test_noise_that_is_given_is_not_drawn() -> None:
    rng = seeded()
    before = rng.get_state()
    assert torch.equal(noise_or_random(NOISE, LATENTS, rng), NOISE)
    assert torch.equal(rng.get_state(), before)
    assert noise_or_random(NOISE.double(), LATENTS, rng).dtype == torch.float32
    assert torch.equal(noise_or_random(None, LATENTS, rng), torch.randn(2, 4, FRAMES, *SIZE, generator=seeded()))
