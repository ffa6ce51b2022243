"""The command ``train``: train by a recipe, alone or under ``torchrun``."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace


def train(args: argparse.Namespace) -> None:
    try:
        from ..training.engine.process_group import Group
        from ..training.recipe import Recipe
        from ..training.trainer import Stopped, Trainer
    except ImportError as error:
        raise ValueError(f"training needs packages that are not there ({error}): pip install '.[train]'") from error
    recipe = Recipe.read(args.recipe)
    recipe = recipe.smoke() if args.smoke else recipe

    def run(recipe: Recipe, group: Group) -> None:
        trainer = Trainer(recipe, args.out, args.resume, over=args.smoke and not args.resume, group=group)
        tell = print if group.first else lambda words: None
        tell(f"training {recipe.name} in {trainer.folder}; it may be stopped at any time, --resume goes on")
        try:
            tell(f"trained: {trainer.run()}")
        except Stopped as stopped:
            tell(str(stopped))
            raise SystemExit(130) from None

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        run(recipe, Group())
        return
    from ..model.sequence_parallel import joined  # as in `generate`
    from ..training.engine.fsdp import Processes

    with joined(recipe.device) as device:
        run(replace(recipe, device=device), Processes(device))
