"""Comparison of training with the reference's golden numbers, on any device: the tests on a GPU replace `load`."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import sf_core
from sf_core.training import DMD, NoiseLevels, Rollout, SiD, rollout
from tests.helpers import CASES, PARITY, relative

LOSS, GRADIENT, FINITE_DIFFERENCE = 1e-6, 1e-5, 1e-3


def load(case: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Load the recorded runs of a case and their tensors."""
    return CASES[case]["runs"], load_file(PARITY / f"{case}.safetensors")


def network(name: str, **settings: Any) -> sf_core.CausalWan:
    """Load a network of the recorded training."""
    return sf_core.load_model(PARITY / f"weights_train_{name}.safetensors", num_heads=2, text_len=8, **settings)


def generator(checkpointing: bool = False) -> sf_core.CausalWan:
    """Load the trainable generator."""
    model = network("generator").requires_grad_(True)
    model.gradient_checkpointing = checkpointing
    return model


class Recorded:
    """Noise of a recorded rollout: for each chunk one tensor for each re-noising, then one for the context."""

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
    """Repeat a recorded rollout."""
    config, prefix = config or sf_core.RolloutConfig(), f"{run}." if run else ""
    flags = [int(flag) for flag in tensors[f"{prefix}rng.exit_flags"]]
    exits = flags if per_chunk else [flags[0]] * len(flags)
    noise = Recorded(tensors, prefix, exits, config.chunk_frames)
    step = exits if per_chunk else exits[0]
    return rollout(model, tensors["prompt_embeds"], noise, config, step, latent_size=(4, 6), **options)


def drawn(tensors: dict[str, Tensor], run: str) -> dict[str, Any]:
    """Return the recorded random draws of a loss."""
    prefix = f"{run}." if run else ""
    noise = tensors[f"{prefix}rng.loss_noise.00"].transpose(1, 2)
    return {"timestep": tensors[f"{prefix}rng.raw_timestep.00"], "noise": noise}


def close(ours: float | Tensor, theirs: float, limit: float) -> bool:
    """Whether two numbers agree to a relative ``limit``."""
    return abs(float(ours) - theirs) <= limit * abs(theirs)


def gradient_norm(model: nn.Module) -> float:
    """Return the norm of all gradients."""
    return float(torch.stack([p.grad.double().norm() for p in model.parameters() if p.grad is not None]).norm())


def assert_gradients(model: nn.Module, tensors: dict[str, Tensor], prefix: str, count: int) -> None:
    """Compare the ``count`` recorded gradients below ``prefix``."""
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


def check_training_step(case: str, run: str, gradients: int, options: dict[str, Any], checkpointing: bool) -> None:
    """Compare rollout, loss and gradient of a recorded step of the generator."""
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


def check_critic_step() -> None:
    """Compare loss and gradient of a recorded step of the critic, which changes nothing of the generator."""
    runs, tensors = load("training_critic")
    model, fake = generator(), network("fake").requires_grad_(True)
    made = recorded_rollout(model, tensors, "")
    assert made.latents.requires_grad
    loss = DMD(network("real"), fake).critic_loss(made, tensors["prompt_embeds"], **drawn(tensors, ""))
    assert close(loss.value.detach(), runs["critic"]["loss"], LOSS)
    loss.value.backward()
    assert_gradients(fake, tensors, "grad.", 69)
    assert all(p.grad is None for p in model.parameters())
