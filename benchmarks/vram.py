"""Memory that a run of the nodes needs on a GPU, predicted for several sizes: the second table of docs/hardware.md.

The numbers are those of the memory ledger (`sf_core.memory_ledger`), which the nodes show and reserve.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import sf_core
from sf_core.byte_units import GIB
from sf_core.memory_ledger import SPARE, DecoderCost, DeviceMemory, Ledger, Parts
from sf_core.memory_ledger import Setup as LedgerSetup
from sf_core.model.architecture import PUBLISHED_SIZES
from sf_core.vae.wan_vae import WanVAE, WanVAEConfig

CARDS = (6, 8, 12, 16, 24, 32, 48, 80)  # GB


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


def parts(setup: Setup) -> Parts:
    """Count the parts of a run of one video."""
    with torch.device("meta"):
        model = sf_core.CausalWan(PUBLISHED_SIZES[setup.model]).to(torch.bfloat16)
        decoder = DecoderCost.of(WanVAE(WanVAEConfig()).to(torch.bfloat16))
    config = sf_core.RolloutConfig(window_frames=setup.window, sink_frames=setup.sink)
    weights = sum(p.numel() for p in model.parameters()) * (1 if setup.weights == "fp8" else 2)
    decoder = decoder.small() if setup.decoder == "TAEHV" else decoder
    size = (setup.height // 8, setup.width // 8)
    return Ledger(model, weights, DeviceMemory("cuda", 0)).parts(LedgerSetup(config, size, decoder=decoder))


def row(setup: Setup) -> str:
    """A row of the table, in Markdown."""
    needs = parts(setup)
    card = min(size for size in CARDS if size * GIB >= needs.total + SPARE)
    window = f"{setup.window}, sink {setup.sink}" if setup.sink else f"{setup.window}"
    cells = [f"{setup.model} {setup.weights}", f"{setup.width} x {setup.height}", window, setup.decoder]
    numbers = (needs.weights, needs.cache, needs.sampling, needs.decoding, needs.total)
    cells += [f"{number / GIB:.1f}" for number in numbers]
    return f"| {' | '.join([*cells, f'{card} GB'])} |"


def table() -> str:
    """The predictions, in Markdown."""
    names = ["model", "size", "window", "decoder", "weights", "cache", "a chunk", "decoding", "in all, GiB", "card"]
    return "\n".join([f"| {' | '.join(names)} |", "|---" * len(names) + "|", *map(row, SETUPS)])


if __name__ == "__main__":
    print(table())
