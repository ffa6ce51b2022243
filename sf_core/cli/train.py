"""The command ``train``: train by a recipe in one process, or in several under ``torchrun``."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace


def train(args: argparse.Namespace) -> None:
    """Run the training of the arguments, or print its plan.

    Raises:
        ValueError: A package for training is missing.
    """
    try:
        from ..training.cost.plan import table
        from ..training.engine.process_group import Group
        from ..training.recipe import Recipe
        from ..training.trainer import Trainer, TrainingStopped
    except ImportError as error:
        raise ValueError(f"training needs packages that are not installed ({error}): pip install '.[train]'") from error
    if args.plan:
        print(table())
        return
    recipe = Recipe.read(args.recipe)
    recipe = recipe.smoke() if args.smoke else recipe

    def run(recipe: Recipe, group: Group) -> None:
        trainer = Trainer(recipe, args.out, args.resume, over=args.smoke and not args.resume, group=group)
        say = print if group.is_rank0 else lambda text: None
        say(f"training {recipe.name} in {trainer.folder}; it may be stopped at any time, --resume continues it")
        try:
            say(f"trained: {trainer.run()}")
        except TrainingStopped as stopped:
            say(str(stopped))
            raise SystemExit(130) from None

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        run(recipe, Group())
        return
    from ..model.sequence_parallel import joined  # as in `generate`
    from ..training.engine.fsdp import Processes

    with joined(recipe.device) as device:
        run(replace(recipe, device=device), Processes(device))
