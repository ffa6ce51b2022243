"""Training against the reference's golden numbers: rollouts, losses, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import sf_core
from sf_core.training import DMD, GAN, Discriminator, NoiseLevels, Rollout, SiD, rollout
from tests.helpers import CASES, PARITY, relative

LOSS, GRADIENT, FINITE_DIFFERENCE = 1e-6, 1e-5, 1e-3


def load(case: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return CASES[case]["runs"], load_file(PARITY / f"{case}.safetensors")


def network(name: str, **settings: Any) -> sf_core.CausalWan:
    return sf_core.load_model(PARITY / f"weights_train_{name}.safetensors", num_heads=2, text_len=8, **settings)


def generator(checkpointing: bool = False) -> sf_core.CausalWan:
    model = network("generator").requires_grad_(True)
    model.gradient_checkpointing = checkpointing
    return model


class Recorded:
    """The noise of a recorded rollout: for each chunk one tensor a re-noising, then one for the context."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str, exits: list[int], chunk_frames: int) -> None:
        self.tensors, self.prefix, self.chunk_frames = tensors, prefix, chunk_frames
        self.firsts = [sum(exit_step + 1 for exit_step in exits[:chunk]) for chunk in range(len(exits))]

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        if step == 0:
            start = chunk * self.chunk_frames
            return self.tensors[f"{self.prefix}rng.noise"][:, start : start + shape[2]].transpose(1, 2)
        recorded = self.tensors[f"{self.prefix}rng.rollout_noise.{self.firsts[chunk] + step - 1:02d}"]
        return recorded.unflatten(0, (shape[0], shape[2])).transpose(1, 2)


def recorded_rollout(
    model: sf_core.CausalWan,
    tensors: dict[str, Tensor],
    run: str,
    config: sf_core.RolloutConfig | None = None,
    per_chunk: bool = False,
    **options: Any,
) -> Rollout:
    config, prefix = config or sf_core.RolloutConfig(), f"{run}." if run else ""
    flags = [int(flag) for flag in tensors[f"{prefix}rng.exit_flags"]]
    exits = flags if per_chunk else [flags[0]] * len(flags)
    noise = Recorded(tensors, prefix, exits, config.chunk_frames)
    step = exits if per_chunk else exits[0]
    return rollout(model, tensors["prompt_embeds"], noise, config, step, latent_size=(4, 6), **options)


def drawn(tensors: dict[str, Tensor], run: str) -> dict[str, Any]:
    prefix = f"{run}." if run else ""
    noise = tensors[f"{prefix}rng.loss_noise.00"].transpose(1, 2)
    return {"timestep": tensors[f"{prefix}rng.raw_timestep.00"], "noise": noise}


def close(ours: float | Tensor, theirs: float, limit: float) -> bool:
    return abs(float(ours) - theirs) <= limit * abs(theirs)


def gradient_norm(model: nn.Module) -> float:
    return float(torch.stack([p.grad.double().norm() for p in model.parameters() if p.grad is not None]).norm())


def assert_gradients(model: nn.Module, tensors: dict[str, Tensor], prefix: str, count: int) -> None:
    recorded = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    assert len(recorded) == count
    for name, theirs in recorded.items():
        ours = model.get_parameter(name).grad
        assert ours is not None, name
        if theirs.any():
            assert relative(ours, theirs) <= GRADIENT, name
        else:  # a bias in front of a difference: what is left is rounding
            assert float(ours.abs().max()) < 1e-6, name


# (case, run, recorded gradients, options of the rollout)
RUNS = [
    ("training_dmd", "grad2", 0, {}),
    ("training_dmd", "perblock", 0, {"per_chunk": True}),
    ("training_dmd", "schedule", 0, {"config": sf_core.RolloutConfig(context_noise=50)}),
    ("training_sid", "alpha1", 8, {}),
    ("training_sid", "alpha0.6", 0, {}),
    ("training_long", "long", 8, {"frames": 27}),
    ("training_i2v", "i2v", 8, {"config": sf_core.RolloutConfig(chunk_frames=4, first_chunk_frames=1)}),
]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("case", "run", "gradients", "options"), RUNS)
def test_rollout_loss_and_gradient_are_the_references(
    case: str, run: str, gradients: int, options: dict[str, Any], checkpointing: bool
) -> None:
    runs, tensors = load(case)
    options = dict(options)
    if case == "training_i2v":
        options["context"] = tensors["initial_latent"].transpose(1, 2)
    if case == "training_long":
        options["vae"] = sf_core.load_vae(PARITY / "weights_vae.safetensors")
    model, real, fake = generator(checkpointing), network("real"), network("fake")
    made = recorded_rollout(model, tensors, run, kv_gradient="straight-through", **options)
    assert relative(made.latents.detach(), tensors[f"{run}.pred_image"].transpose(1, 2)) <= 5e-6
    recorded = runs[run]
    assert made.timestep_from == recorded.get("denoised_timestep_from")
    assert made.timestep_to == recorded.get("denoised_timestep_to")
    if made.gradient_mask is None:
        assert "gradient_mask_true_frames" not in recorded
    else:
        assert made.gradient_mask.shape == made.latents.shape
        frames = made.gradient_mask[0, 0, :, 0, 0].nonzero().flatten().tolist()
        assert frames == recorded["gradient_mask_true_frames"]

    loss: DMD | SiD = DMD(real, fake)
    if run == "schedule":
        levels = NoiseLevels(5.0, ts_schedule=True, ts_schedule_max=True)
        loss = DMD(real, fake, guidance=2.5, fake_guidance=0.5, levels=levels)
    elif case == "training_sid":
        loss = SiD(real, fake, alpha=float(run.removeprefix("alpha")))
    draws = drawn(tensors, run)
    assert torch.equal(NoiseLevels(5.0).timestep(made, draws["timestep"], None), tensors[f"{run}.timestep"][:, 0])
    value = loss.generator_loss(made, tensors["prompt_embeds"], tensors["negative_embeds"], **draws).value
    assert close(value.detach(), recorded["loss"], LOSS)
    value.backward()
    assert close(gradient_norm(model), recorded["norm"], GRADIENT)
    assert_gradients(model, tensors, f"{run}.grad.", gradients)
    if run == "grad2":
        assert_gradients(model, tensors, "grad2.asis.", 69)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_flows_into_earlier_keys_and_values_by_default(checkpointing: bool) -> None:
    runs, tensors = load("training_dmd")
    model = generator(checkpointing)
    made = recorded_rollout(model, tensors, "grad2")
    loss = DMD(network("real"), network("fake"))
    draws = drawn(tensors, "grad2")
    value = loss.generator_loss(made, tensors["prompt_embeds"], tensors["negative_embeds"], **draws).value
    assert close(value.detach(), runs["grad2"]["loss"], LOSS)
    value.backward()
    assert close(gradient_norm(model), runs["grad2_detached"]["norm"], GRADIENT)
    assert_gradients(model, tensors, "grad2.detached.", 8)


def test_the_critics_loss_is_the_references_and_leaves_the_generator_alone() -> None:
    runs, tensors = load("training_critic")
    model, fake = generator(), network("fake").requires_grad_(True)
    made = recorded_rollout(model, tensors, "")
    assert made.latents.requires_grad
    loss = DMD(network("real"), fake).critic_loss(made, tensors["prompt_embeds"], **drawn(tensors, ""))
    assert close(loss.value.detach(), runs["critic"]["loss"], LOSS)
    loss.value.backward()
    assert_gradients(fake, tensors, "grad.", 69)
    assert all(p.grad is None for p in model.parameters())


def gan(run: str) -> tuple[GAN, Discriminator]:
    weights = load_file(PARITY / "weights_train_gan_critic.safetensors")
    weights |= load_file(PARITY / f"weights_train_gan_cls_{run}.safetensors")
    backbone = {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
    model = sf_core.load_model(backbone, num_heads=1, text_len=8)
    relativistic = run == "relativistic"
    discriminator = Discriminator(model, layers=(0, 1, 2), with_time=relativistic, ffn_dim=64)
    discriminator.load_state_dict(weights)
    slopes: dict[str, Any] = {"r1_weight": 1.0, "r2_weight": 0.5, "r1_sigma": 0.1, "r2_sigma": 0.1}
    return GAN(
        discriminator, relativistic=relativistic, generator_weight=0.5, discriminator_weight=0.7, **slopes
    ), discriminator


def noises(tensors: dict[str, Tensor], run: str, count: int) -> list[Tensor]:
    return [tensors[f"{run}.rng.loss_noise.{i:02d}"].transpose(1, 2) for i in range(count)]


@pytest.mark.parametrize("run", ["plain", "relativistic"])
def test_the_gans_generator_loss_is_the_references(run: str) -> None:
    runs, tensors = load("training_gan")
    model, (loss, discriminator) = generator(), gan(run)
    discriminator.requires_grad_(False)
    made = recorded_rollout(model, tensors, run, kv_gradient="straight-through")
    timestep, real = tensors[f"{run}.rng.raw_timestep.00"], tensors["real_latent"].transpose(1, 2)
    noise = noises(tensors, run, 2)
    value = loss.generator_loss(made, tensors["prompt_embeds"], timestep=timestep, noise=noise, real=real).value
    assert close(value.detach(), runs[run]["loss"], LOSS)
    value.backward()
    assert close(gradient_norm(model), runs[run]["norm"], GRADIENT)
    assert_gradients(model, tensors, f"{run}.grad.", 8)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("run", ["plain", "relativistic"])
def test_the_discriminators_loss_is_the_references(run: str, checkpointing: bool) -> None:
    runs, tensors = load("training_gan")
    recorded, (loss, discriminator) = runs[f"{run}.D"], gan(run)
    discriminator.requires_grad_(True)
    discriminator.model.gradient_checkpointing = checkpointing
    made = recorded_rollout(generator(), tensors, f"{run}.D")
    timestep, real = tensors[f"{run}.D.rng.raw_timestep.00"], tensors["real_latent"].transpose(1, 2)
    noise = noises(tensors, f"{run}.D", 3)
    found = loss.critic_loss(made, tensors["prompt_embeds"], timestep=timestep, noise=noise, real=real)
    assert close(found.value.detach(), recorded["total_loss"], LOSS)
    assert close(found.logs["gan_critic_loss"], recorded["gan_D_loss"], LOSS)
    assert close(found.logs["r1"], recorded["r1_loss"], FINITE_DIFFERENCE)
    assert close(found.logs["r2"], recorded["r2_loss"], FINITE_DIFFERENCE)
    found.value.backward()
    discriminator_gradients = {k: v for k, v in tensors.items() if f"{run}.D.grad." in k}
    # they divide differences of logits by sigma, so rounding shows more
    for name, theirs in discriminator_gradients.items():
        ours = discriminator.get_parameter(name.removeprefix(f"{run}.D.grad.")).grad
        assert ours is not None
        assert relative(ours, theirs) <= FINITE_DIFFERENCE if theirs.any() else float(ours.abs().max()) < 1e-6
    assert len(discriminator_gradients) == 26
