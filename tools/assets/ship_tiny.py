"""Export of the embedded model from finished trainings.

`python -m tools.assets.ship_tiny runs/tiny-world runs/tiny-decoder runs/tiny-world-framewise`, or some of them. The
trainings themselves are `python -m sf_core train --recipe tiny-world` and so on, in this order. Weights are rounded to
bfloat16; their metadata names the command that made them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from sf_core import tiny
from sf_core.files.safetensors_file import open_tensors, read_value, write_tensors

# by the name of the recipe: names of files in a training, and here
NETWORKS = {
    "tiny-world": {"model": "transformer", "teacher": "teacher", "vae": "vae"},
    "tiny-decoder": {"vae": "vae"},
    "tiny-world-framewise": {"model": "framewise"},
}


def ship(run: Path, folder: Path = tiny.FOLDER) -> None:
    """Export the files of a training.

    Args:
        run: Folder of the training; its name is that of the recipe.
        folder: Folder of the embedded model.

    Raises:
        ValueError: The folder has another name than the recipes.
        FileNotFoundError: The training is not finished.
    """
    recipe = run.resolve().name
    if recipe not in NETWORKS:
        raise ValueError(f"{run} is no training of the embedded model; expected a folder {', '.join(NETWORKS)}")
    for source, target in NETWORKS[recipe].items():
        stored, facts = open_tensors(run / f"{source}.safetensors")
        facts["sf.made_by"] = f"python -m sf_core train --recipe {recipe} (torch {torch.__version__}, CPU)"
        layout = {name: (tuple(value.shape), torch.bfloat16) for name, value in stored.items()}
        values = (read_value(value).bfloat16() for value in stored.values())
        write_tensors(folder / f"{target}.safetensors", layout, values, facts)
    if recipe == "tiny-world":
        for name in ("text.json", "text.safetensors"):
            shutil.copyfile(run / "text" / name, folder / name)


if __name__ == "__main__":
    for run in sys.argv[1:]:
        ship(Path(run))
