"""Memory that a run needs on a GPU, predicted for several sizes: the second table of docs/hardware.md.

Weights and cache are counted exactly. The work on a chunk is scaled by tokens and width, and the Wan decoder by pixels,
from what `realtime.py` measured on an NVIDIA H200 (results/realtime_cuda.json). The TAEHV decoder is an upper bound.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

import sf_core
from sf_core.model.architecture import WanArchitecture

GIB = 2**30
MODELS = {
    "1.3B": WanArchitecture(dim=1536, ffn_dim=8960, num_layers=30, num_heads=12),
    "14B": WanArchitecture(dim=5120, ffn_dim=13824, num_layers=40, num_heads=40),
}
MEASURED_DIM, MEASURED_PIXELS = 1536, 832 * 480
TAEHV_VALUES = 1000  # bfloat16 values for each pixel of a frame, as the nodes reserve
VAE_PARAMETERS = 126_892_531  # of the Wan 2.1 VAE
CARDS = (6, 8, 12, 16, 24, 32, 48, 80)  # GB
SPARE = 1.0  # GiB for CUDA itself and the desktop


@dataclass(frozen=True)
class Setup:
    """A model and the settings that decide how much memory it needs."""

    model: str
    weights: str  # "bf16" or "fp8"
    width: int
    height: int
    window: int
    sink: int
    decoder: str  # "Wan VAE" or "TAEHV"


SETUPS = (
    Setup("1.3B", "bf16", 832, 480, 21, 0, "Wan VAE"),
    Setup("1.3B", "bf16", 832, 480, 12, 3, "Wan VAE"),
    Setup("1.3B", "bf16", 832, 480, 21, 0, "TAEHV"),
    Setup("1.3B", "bf16", 832, 480, 12, 3, "TAEHV"),
    Setup("1.3B", "fp8", 832, 480, 12, 3, "TAEHV"),
    Setup("1.3B", "fp8", 480, 272, 12, 3, "TAEHV"),
    Setup("14B", "fp8", 832, 480, 6, 0, "TAEHV"),
    Setup("14B", "bf16", 832, 480, 6, 0, "Wan VAE"),
)


def measured(name: str) -> float:
    """GiB of a row of realtime.py's results."""
    results = json.loads((Path(__file__).parent / "results" / "realtime_cuda.json").read_text(encoding="utf-8"))
    return float(results["rows"][name]["median"])


def parts(setup: Setup) -> tuple[float, float, float, float]:
    """GiB of (weights, cache, work on a chunk, decoder) in a session of one video."""
    architecture, pixels = MODELS[setup.model], setup.width * setup.height
    with torch.device("meta"):
        model = sf_core.CausalWan(architecture).to(torch.bfloat16)
    config = sf_core.RolloutConfig(window_frames=setup.window, sink_frames=setup.sink)
    weights = sum(p.numel() for p in model.parameters()) * (1 if setup.weights == "fp8" else 2)
    cache = model.cache_bytes(config, (setup.height // 8, setup.width // 8))
    scale = pixels / MEASURED_PIXELS
    chunk = measured("sampling, beside weights and cache") * scale * architecture.dim / MEASURED_DIM
    if setup.decoder == "TAEHV":
        decoder = pixels * TAEHV_VALUES * 2 / GIB
    else:
        decoder = VAE_PARAMETERS * 2 / GIB + measured("decoding, beside weights") * scale
    return weights / GIB, cache / GIB, chunk, decoder


def row(setup: Setup) -> str:
    """A row of the table, in Markdown."""
    numbers = parts(setup)
    card = min(size for size in CARDS if size >= sum(numbers) + SPARE)
    window = f"{setup.window}, sink {setup.sink}" if setup.sink else f"{setup.window}"
    cells = [f"{setup.model} {setup.weights}", f"{setup.width} x {setup.height}", window, setup.decoder]
    cells += [f"{number:.1f}" for number in (*numbers, sum(numbers))]
    return f"| {' | '.join([*cells, f'{card} GB'])} |"


def table() -> str:
    """The predictions, in Markdown."""
    names = ["model", "size", "window", "decoder", "weights", "cache", "a chunk", "decoding", "sum, GiB", "card"]
    return "\n".join([f"| {' | '.join(names)} |", "|---" * len(names) + "|", *map(row, SETUPS)])


if __name__ == "__main__":
    print(table())
