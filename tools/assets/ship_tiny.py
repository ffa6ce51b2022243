"""Export of the embedded model from a finished training: `python -m tools.assets.ship_tiny runs/tiny-world`.

The training itself is `python -m sf_core train --recipe tiny-world`. Weights are rounded to bfloat16; their metadata
names the command that made them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from sf_core import tiny
from sf_core.files.safetensors_file import open_tensors, read_value, write_tensors

NETWORKS = {"model": "transformer", "teacher": "teacher", "vae": "vae"}  # names of files: in a training, here


def ship(run: Path, folder: Path = tiny.FOLDER) -> None:
    """Export the files of a training.

    Args:
        run: Folder of the training.
        folder: Folder of the embedded model.

    Raises:
        FileNotFoundError: The training is not finished.
    """
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
