"""Training with adapters: one base in memory, the results of copies, files that any LoRA loader reads."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import sf_core
from sf_core.__main__ import main
from sf_core.model.architecture import WanArchitecture
from sf_core.noise import SeededNoise
from sf_core.training import DMD, Trainer, rollout
from sf_core.training.engine.learner import Learner
from sf_core.training.engine.lora_adapters import AdaptedWan, state_without_base
from sf_core.training.engine.networks import new_transformer, save_transformer
from sf_core.training.engine.process_group import Group
from sf_core.training.losses.loss import Loss
from sf_core.training.recipe import AdapterSettings, Recipe
from sf_core.training.rollouts import Rollout
from sf_core.training.stage_settings import Optimizer
from sf_core.training.trainer import TrainingStopped
from tests.helpers import SIZE, prompt, random_model, relative
from tests.training.recipes import WORLD

RANK = AdapterSettings(rank=3, alpha=6.0)
CONFIG = sf_core.RolloutConfig(chunk_frames=2, window_frames=4, denoising_steps=(1000, 500))


def bytes_of(*models: torch.nn.Module) -> int:
    """Each storage once."""
    return sum({p.untyped_storage().data_ptr(): p.nbytes for model in models for p in model.parameters()}.values())


def moved(model: AdaptedWan, seed: int = 5) -> AdaptedWan:
    """As if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.adapted.values():
        module.up.copy_(torch.randn(module.up.shape, generator=generator) * 0.3)
    return model


def flow_of(model: sf_core.CausalWan) -> Tensor:
    rng, arch = torch.Generator().manual_seed(0), model.arch
    latents = torch.randn(1, arch.in_dim, 4, 4, 4, generator=rng)
    return model(latents, torch.full((1, 4), 400.0), torch.randn(1, 5, arch.text_dim, generator=rng))


@torch.no_grad()
def flow(model: sf_core.CausalWan) -> Tensor:
    return flow_of(model)


def test_it_begins_as_the_base_whose_weights_are_there_once() -> None:
    base = random_model()
    models = [AdaptedWan(base, RANK, seed) for seed in (0, 1)]
    assert torch.equal(flow(models[0]), flow(base))
    adapters = sum(tensor.nbytes for model in models for tensor in state_without_base(model).values())
    assert bytes_of(base, *models) == bytes_of(base) + adapters
    assert not any(p.requires_grad for model in (base, *models) for p in model.parameters())


def train(copies: bool, checkpointing: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Three steps of DMD: (losses and gradients' norms, adapters of generator and critic)."""
    base = random_model()
    bases = [random_model() if copies else base for _ in range(3)]
    generator, critic = (moved(AdaptedWan(one, RANK, seed), seed) for seed, one in enumerate(bases[:2]))
    loss = DMD(bases[2], critic, guidance=3.0)
    learners = {}
    for name, model in (("generator", generator), ("critic", critic)):
        model.gradient_checkpointing = checkpointing
        learners[name] = Learner(name, model.requires_grad_(True), Optimizer(lr=1e-2, clip=1e3), 3)

    def made(step: int) -> Rollout:
        rng = torch.Generator().manual_seed(step)
        return rollout(generator, prompt(step), SeededNoise(step), CONFIG, frames=4, rng=rng, latent_size=SIZE)

    @torch.no_grad()
    def judged(step: int) -> Rollout:
        return made(step)

    told: list[Tensor] = []
    for step in range(3):
        rng = torch.Generator().manual_seed(100 + step)
        one = partial(lambda k, rng: loss.generator_loss(made(k), prompt(k), prompt(9), rng=rng), step, rng)
        two = partial(lambda k, rng: loss.critic_loss(judged(k), prompt(k), rng=rng), step, rng)
        told += [*learners["generator"].update([one]).values(), *learners["critic"].update([two]).values()]
    weights = {
        f"{name}.{key}": value
        for name, one in learners.items()
        for key, value in state_without_base(one.network).items()
    }
    return told, weights


@pytest.mark.parametrize("checkpointing", [False, True])
def test_over_one_base_three_networks_learn_what_three_copies_learn(checkpointing: bool) -> None:
    (shared, weights), (apart, theirs) = train(False, checkpointing), train(True, checkpointing)
    assert len(shared) == len(apart) > 0
    assert all(abs(a - b) <= 1e-6 * max(1.0, abs(float(b))) for a, b in zip(shared, apart, strict=True))
    assert all(relative(weights[name], theirs[name]) <= 1e-6 for name in weights)
    base = random_model()
    fresh = {f"generator.{k}": v for k, v in state_without_base(moved(AdaptedWan(base, RANK, 0), 0)).items()}
    assert all(not torch.equal(weights[name], fresh[name]) for name in fresh)  # all of it was trained


def test_the_base_is_as_it_was_after_training(tmp_path: Path) -> None:
    base = random_model()
    before = copy.deepcopy(base.state_dict())
    model = AdaptedWan(base, RANK).requires_grad_(True)
    learner = Learner("model", model, Optimizer(lr=1e-1, ema=0.5), 1, model.frozen_copy())
    learner.update([lambda: Loss(flow_of(model).square().mean(), {})])
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert bytes_of(base, model, learner.average) < 2 * bytes_of(base)  # type: ignore[arg-type]


def test_the_file_is_a_lora_that_merges_to_the_same_model(tmp_path: Path) -> None:
    base = random_model()
    model = moved(AdaptedWan(base, RANK))
    save_file(model.lora(), tmp_path / "a.safetensors")
    merged = sf_core.load_model(
        base.state_dict(), lora=tmp_path / "a.safetensors", num_heads=base.arch.num_heads, text_len=base.arch.text_len
    )
    assert relative(flow(merged), flow(model)) < 1e-6
    assert relative(flow(merged), flow(base)) > 1e-2
    again = AdaptedWan(base, RANK, seed=9)
    again.load_lora(tmp_path / "a.safetensors")
    assert torch.equal(flow(again), flow(model))
    for other in (AdapterSettings(rank=2, alpha=6.0), AdapterSettings(rank=3, alpha=3.0)):
        with pytest.raises(ValueError, match="LoRA of rank 3 and alpha 6"):
            AdaptedWan(base, other).load_lora(tmp_path / "a.safetensors")


# As a recipe --------------------------------------------------------------------------------------------------------

STAGES = """
[lora]
rank = 2
alpha = 4.0
[[stages]]
kind = "causal"
by = "ode"
steps = 2
batch = 2
trajectories = 2
solver_steps = 4
optimizer = { lr = 1e-3 }
[[stages]]
kind = "self-forcing"
steps = 4
batch = 2
ratio = 2
checkpointing = true
optimizer = { lr = 1e-3, ema = 0.5 }
critic = { lr = 1e-3 }
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A teacher from a file, a causal start and Self Forcing as adapters over it."""
    arch = WanArchitecture(
        dim=32, ffn_dim=64, num_layers=2, num_heads=2, freq_dim=32, text_dim=64, text_len=16, in_dim=16, out_dim=16
    )
    path = tmp_path / "teacher.safetensors"
    teacher = new_transformer(arch, 1)
    torch.nn.init.normal_(teacher.head.head.weight, std=0.1, generator=torch.Generator().manual_seed(2))
    save_transformer(path, teacher, sf_core.RolloutConfig(), (4, 4), {})
    head = WORLD.replace("[world]", f'latent_size = [4, 4]\n[files]\nteacher = "{path}"\n[world]')
    head = head.replace("frames = 6\n", "frames = 6\nlatent_size = [4, 4]\n", 1).replace(
        "latent_size = [4, 4]\n[files]", "[files]"
    )
    (tmp_path / "recipe.toml").write_text(head + STAGES)
    return tmp_path / "recipe.toml"


def test_a_recipe_with_adapters_makes_loras_and_is_resumed_to_the_same_bits(recipe: Path, tmp_path: Path) -> None:
    made = Trainer(recipe, tmp_path / "straight").run()
    assert made.name == "model.lora.safetensors"
    broken, runs = tmp_path / "broken", 0
    while True:
        trainer = Trainer(recipe, broken, resume=runs > 0)
        trainer.request_stop()  # after a step
        try:
            again = trainer.run()
            break
        except TrainingStopped:
            runs += 1
    assert runs == 6
    for name in ("causal.lora", "model.lora", "critic.lora"):
        ours, theirs = (load_file(folder.parent / f"{name}.safetensors") for folder in (made, again))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_what_it_makes_loads_and_says_how_it_was_trained(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, teacher = Trainer(recipe, tmp_path / "run").run(), tmp_path / "teacher.safetensors"
    base, model = sf_core.load_model(teacher), sf_core.load_model(teacher, lora=made)
    assert torch.isfinite(flow(model)).all()
    assert not torch.equal(flow(model), flow(base))
    assert base.rollout_config == sf_core.RolloutConfig()
    assert model.rollout_config == Recipe.read(recipe).rollout_config
    assert main(["info", str(made)]) == 0
    said = capsys.readouterr().out
    assert "recipe small, seed 0, stage 2-self-forcing, 4 steps" in said
    assert "denoising_steps=(1000, 500)" in said
    assert main(["convert", str(teacher), str(tmp_path / "merged.safetensors"), "--lora", str(made)]) == 0
    merged = sf_core.load_model(tmp_path / "merged.safetensors")
    assert (merged.fingerprint, merged.rollout_config) == (model.fingerprint, model.rollout_config)


def test_a_gan_is_not_trained_with_adapters(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + 'loss = "gan"\n')
    with pytest.raises(ValueError, match=r"\[lora\] is for"):
        Recipe.read(recipe)


def test_what_is_saved_on_the_way_holds_no_base(recipe: Path, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    trainer.request_stop()
    with pytest.raises(TrainingStopped):
        trainer.run()
    names = load_file(tmp_path / "run" / "state.safetensors")
    assert {name.rpartition(".")[2] for name in names if ".network." in name} == {"down", "up"}


def test_several_processes_are_refused(recipe: Path) -> None:
    class Two(Group):
        size = 2

    with pytest.raises(ValueError, match="trained by one process"):
        Two().check_recipe(Recipe.read(recipe))
