"""Training against the reference's golden numbers: rollouts, losses, gradients."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

import sf_core
from sf_core.training import DMD, GAN, Discriminator
from tests.helpers import PARITY, relative
from tests.training.golden import (
    FINITE_DIFFERENCE,
    GRADIENT,
    LOSS,
    RUNS,
    assert_gradients,
    check_critic_step,
    check_training_step,
    close,
    drawn,
    generator,
    gradient_norm,
    load,
    network,
    recorded_rollout,
)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("case", "run", "gradients", "options"), RUNS)
def test_rollout_loss_and_gradient_are_the_references(
    case: str, run: str, gradients: int, options: dict[str, Any], checkpointing: bool
) -> None:
    check_training_step(case, run, gradients, options, checkpointing)


def test_the_critics_loss_is_the_references_and_leaves_the_generator_alone() -> None:
    check_critic_step()


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
