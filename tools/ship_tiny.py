"""The embedded model, out of a finished training of the tiny world: `python -m tools.ship_tiny runs/tiny-world`.

The training itself: `python -m sf_core train --recipe tiny-world`. Weights are rounded to bfloat16; their metadata says
how they were made.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from sf_core import tiny
from sf_core.files.safetensors_file import open_tensors, read_value, write_tensors

NETWORKS = {
    "model": "transformer",
    "teacher": "teacher",
    "vae": "vae",
}  # what a training calls it, and what it is called here


def ship(run: Path, folder: Path = tiny.FOLDER) -> None:
    """Put the files of ``run`` into ``folder``. Raises FileNotFoundError for a training that is not finished."""
    for source, target in NETWORKS.items():
        stored, facts = open_tensors(run / f"{source}.safetensors")
        facts["sf.made_by"] = f"python -m sf_core train --recipe tiny-world (torch {torch.__version__}, CPU)"
        layout = {name: (tuple(value.shape), torch.bfloat16) for name, value in stored.items()}
        values = (read_value(value).bfloat16() for value in stored.values())
        write_tensors(folder / f"{target}.safetensors", layout, values, facts)
    for name in ("text.json", "text.safetensors"):
        shutil.copyfile(run / "text" / name, folder / name)


if __name__ == "__main__":
    ship(Path(sys.argv[1]))
