"""The command ``plan``: settings with which a video fits a card, or is made in real time."""

from __future__ import annotations

import argparse

import torch

from ..byte_units import GIB, format_bytes
from ..config import RolloutConfig
from ..device_rates import DeviceRates, known_rates
from ..files.published_models import model_by_name
from ..memory_advice import changes_of
from ..memory_ledger import SPARE, DeviceMemory, Setup
from ..planner import Plan, plan
from .model_sizes import SIZES, model_in, published, wished

CARDS = (8, 12, 16, 24, 32, 80)  # GiB, of the table


def plan_command(args: argparse.Namespace) -> None:
    """Print the plan that the arguments ask for, or the table of cards.

    Raises:
        ValueError: Nothing fits.
    """
    if args.table:
        print(table())
        return
    size = published(args.size_of or "1.3B") if args.model is None else model_in(args.model)
    config = size.config if args.preset is None else model_by_name(args.preset).config or RolloutConfig()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    rates = None if args.memory is not None else known_rates(device, torch.bfloat16, args.calibrate)
    width, height = args.size or size.pixels
    memory = _memory(args.memory, args.ram, device)
    ledger, setup = wished(size, config, memory, (width, height), args.weights, args.seconds)
    fps = size.fps if args.real_time else 0.0
    print(f"model       {size.name}, {width} x {height} pixels")
    print("\n".join(report(setup, plan(ledger, setup, rates, fps), rates, fps)))


def report(asked: Setup, found: Plan, rates: DeviceRates | None, fps: float) -> list[str]:
    """A plan in lines."""
    parts, work = found.parts, found.work
    lines = [f"settings    {settings_of(found.setup)}"]
    changes = changes_of(asked, found.setup)
    lines.append(f"changed     {', '.join(changes) if changes else 'nothing: it fits as it is'}")
    entries = {"weights": parts.weights, "cache": parts.cache, "a chunk": parts.sampling, "decoding": parts.decoding}
    sizes = ", ".join(f"{name} {format_bytes(value)}" for name, value in entries.items())
    lines.append(f"memory      {format_bytes(parts.total - found.offloaded)}: {sizes}")
    if found.offloaded or parts.host_cache:
        held = {"weights": found.offloaded, "cache": parts.host_cache}
        lines.append("in RAM      " + ", ".join(f"{name} {format_bytes(n)}" for name, n in held.items() if n))
    kinds = {"linear": work.products, "attention": work.attention, "decoding": work.decoding}
    shares = ", ".join(f"{name} {value / 1e12:.3g}" for name, value in kinds.items())
    lines.append(f"work        {work.total / 1e12:.3g} TFLOP for a chunk of {work.frames} frames: {shares}")
    if rates is not None and found.fps is not None:
        short = "" if found.in_time else f", which is less than {fps:g}: take a smaller picture"
        lines.append(f"speed       {found.fps:.3g} frames a second at best, end to end{short}")
        figures = (rates.products, rates.attention, rates.convolution)
        teraflops = ", ".join(f"{rate / 1e12:.3g}" for rate in figures)
        lines.append(
            f"measured    {rates.name}: {teraflops} TFLOP/s (linear, attention, convolution), "
            f"{rates.copies / 1e9:.3g} GB/s copied"
        )
    return lines


def settings_of(setup: Setup) -> str:
    """The settings that a plan may change, as the widgets name them."""
    config = setup.config
    words = [
        f"window_frames={config.window_frames}",
        f"sink_frames={config.sink_frames}",
        f"kv_dtype={config.kv_dtype or 'as the model'}",
        f"kv_offload={config.kv_offload}",
        f"denoising_steps={', '.join(f'{step:g}' for step in config.denoising_steps)}",
    ]
    return "; ".join(words) + (f"; decoder {setup.decoder.name}" if setup.decoder else "")


def table() -> str:
    """What fits cards of usual sizes, in Markdown: 832 x 480 (5B: 1280 x 704), ComfyUI offloading weights."""
    rows = ["| card | model | what is changed | on the GPU | in RAM |", "|---|---|---|---|---|"]
    for card in CARDS:
        for name, size in SIZES.items():
            pixels = (1280, 704) if size.factor == 16 else (832, 480)
            ledger, setup = wished(size, size.config, DeviceMemory.card(card), pixels)
            try:
                found = plan(ledger, setup)
            except ValueError:
                rows.append(f"| {card} GB | {name} | nothing fits | | |")
                continue
            held = {"weights": found.offloaded, "cache": found.parts.host_cache}
            ram = ", ".join(f"{part} {n / GIB:.1f} GiB" for part, n in held.items() if n)
            changed = ", ".join(changes_of(setup, found.setup)) or "nothing"
            on_gpu = (found.parts.total - found.offloaded) / GIB
            rows.append(f"| {card} GB | {name} | {changed} | {on_gpu:.1f} GiB | {ram} |")
    return "\n".join(rows)


def _memory(gib: float | None, ram: float | None, device: torch.device) -> DeviceMemory:
    """The memory of this machine, or of a card of ``gib`` GiB beside ``ram`` GiB."""
    own_ram = _own_ram()
    if gib is not None:
        return DeviceMemory.card(gib, ram=round((ram or 0) * GIB))
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return DeviceMemory("cuda", total, offloads=True, spare=SPARE, ram=own_ram)
    return DeviceMemory(device.type, own_ram, spare=SPARE)


def _own_ram() -> int:
    """Bytes of RAM of this machine; 0: nobody tells."""
    try:
        import psutil
    except ImportError:
        return 0
    return int(psutil.virtual_memory().total)
