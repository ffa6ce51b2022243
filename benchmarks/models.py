"""What the benchmarks run: a random model of any size, a session on it, and the options that say so.

Importing it makes `sf_core` importable from the checkout that this file lies in.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sf_core
from sf_core.cli.generate import DTYPES
from sf_core.model.architecture import WanArchitecture
from sf_core.vae.wan_vae import WanVAE


def add_arguments(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """The options of every benchmark: sizes of the model and picture, window, threads. ``defaults`` by name."""
    sizes = {
        "dim": 512, "ffn": 2048, "layers": 8, "heads": 4, "text_dim": 256, "text_len": 512, "chunk": 3,
        "window": 21, "sink": 0, "pairs": 9, "threads": 1, "seed": 0,
    }  # fmt: skip
    for name, value in (sizes | {k: v for k, v in defaults.items() if k in sizes}).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help="default: %(default)s")
    add_latent(parser, "--latent", defaults.get("latent", (30, 52)))
    parser.add_argument("--device", default=defaults.get("device", "cpu"), help="default: %(default)s")
    dtype = defaults.get("dtype", "float32")
    parser.add_argument("--dtype", choices=list(DTYPES), default=dtype, help="default: %(default)s")


def add_latent(parser: argparse.ArgumentParser, option: str, default: tuple[int, int]) -> None:
    explained = "latent size, a token for 2 x 2; default: %(default)s"
    parser.add_argument(option, type=int, nargs=2, default=default, metavar=("ROWS", "COLUMNS"), help=explained)


def architecture(args: argparse.Namespace) -> WanArchitecture:
    return WanArchitecture(
        dim=args.dim, ffn_dim=args.ffn, num_layers=args.layers, num_heads=args.heads,
        text_dim=args.text_dim, text_len=args.text_len,
    )  # fmt: skip


def random_state(arch: WanArchitecture, seed: int = 0, device: str = "cpu") -> dict[str, Tensor]:
    """Random weights under Wan's names, scaled so that activations and latents keep their size."""
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in sf_core.CausalWan(arch).named_parameters()}
    state = {}
    for name, shape in shapes.items():
        if name.endswith("modulation"):
            state[name] = torch.randn(shape, generator=generator, device=device) * arch.dim**-0.5
        elif len(shape) > 1:
            scale = math.prod(shape[1:]) ** -0.5
            state[name] = torch.randn(shape, generator=generator, device=device) * scale
        else:
            fill = torch.ones if name.endswith("weight") else torch.zeros
            state[name] = fill(shape, device=device)
    return state


def random_model(
    arch: WanArchitecture, seed: int = 0, device: str = "cpu", dtype: str = "float32"
) -> sf_core.CausalWan:
    state = random_state(arch, seed, device)
    return sf_core.load_model(state, device, DTYPES[dtype], num_heads=arch.num_heads, text_len=arch.text_len)


def random_prompt(arch: WanArchitecture, seed: int = 0) -> Tensor:
    """Text embeddings [1, text_len, text_dim]; every row counts, so that nobody has to fill up."""
    return torch.randn(1, arch.text_len, arch.text_dim, generator=torch.Generator().manual_seed(seed + 1))


def random_latents(arch: WanArchitecture, frames: int, size: Sequence[int], seed: int = 0) -> Tensor:
    shape = (1, arch.in_dim, frames, *size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 2))


def start_session(model: sf_core.CausalWan, args: argparse.Namespace, context: int = 0) -> sf_core.Session:
    """A session of the size, window, sink and prompt that ``args`` say, after ``context`` random latent frames."""
    size = (args.latent[0], args.latent[1])
    config = sf_core.RolloutConfig(chunk_frames=args.chunk, window_frames=args.window, sink_frames=args.sink)
    prompt = random_prompt(model.arch, args.seed)
    session = sf_core.Session.start(model, prompt, size, config, seed=args.seed)
    return session.with_context(random_latents(model.arch, context, size, args.seed)) if context else session


def context_frames(args: argparse.Namespace) -> int:
    """Frames of context after which a chunk sees a full window (or nearly, if chunks do not fill it evenly)."""
    return int(args.window // args.chunk - 1) * int(args.chunk)


class Rollout:
    """A session that goes on, chunk by chunk."""

    def __init__(self, session: sf_core.Session) -> None:
        self.session = session

    def chunk(self) -> Tensor:
        """One `next_chunk`: the cache pass of the chunk before, then the denoising steps."""
        self.session, latents = self.session.next_chunk()
        return latents


def vae_shapes(width: int, depth: int = 2, channels: int = 16) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of a Wan 2.1 VAE (the real one: 96 wide, 2 residual blocks deep)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, outputs: int, inputs: int, *kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, *kernel), (outputs,)

    def residual(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.residual.0.gamma"], shapes[f"{name}.residual.3.gamma"] = (inputs, 1, 1, 1), (outputs, 1, 1, 1)
        conv(f"{name}.residual.2", outputs, inputs, 3, 3, 3)
        conv(f"{name}.residual.6", outputs, outputs, 3, 3, 3)
        if inputs != outputs:
            conv(f"{name}.shortcut", outputs, inputs, 1, 1, 1)

    def ends(part: str, first: int, inner: int, last: int, inputs: int, outputs: int) -> None:
        conv(f"{part}.conv1", first, inputs, 3, 3, 3)
        residual(f"{part}.middle.0", inner, inner)
        residual(f"{part}.middle.2", inner, inner)
        shapes[f"{part}.middle.1.norm.gamma"] = (inner, 1, 1)
        conv(f"{part}.middle.1.to_qkv", 3 * inner, inner, 1, 1)
        conv(f"{part}.middle.1.proj", inner, inner, 1, 1)
        shapes[f"{part}.head.0.gamma"] = (last, 1, 1, 1)
        conv(f"{part}.head.2", outputs, last, 3, 3, 3)

    inner = 4 * width
    ends("encoder", width, inner, inner, 3, 2 * channels)
    ends("decoder", inner, inner, width, channels, 3)
    conv("conv1", 2 * channels, 2 * channels, 1, 1, 1)
    conv("conv2", channels, channels, 1, 1, 1)
    number, size = 0, width
    for level, outputs in enumerate((width, 2 * width, inner, inner)):
        for _ in range(depth):
            residual(f"encoder.downsamples.{number}", size, outputs)
            number, size = number + 1, outputs
        if level < 3:
            conv(f"encoder.downsamples.{number}.resample.1", outputs, outputs, 3, 3)
            if level:
                conv(f"encoder.downsamples.{number}.time_conv", outputs, outputs, 3, 1, 1)
            number += 1
    number, size = 0, inner
    for level, outputs in enumerate((inner, inner, 2 * width, width)):
        for _ in range(depth + 1):
            residual(f"decoder.upsamples.{number}", size, outputs)
            number, size = number + 1, outputs
        if level < 3:
            size = outputs // 2
            conv(f"decoder.upsamples.{number}.resample.1", size, outputs, 3, 3)
            if level < 2:
                conv(f"decoder.upsamples.{number}.time_conv", 2 * outputs, outputs, 3, 1, 1)
            number += 1
    return shapes


def random_vae_state(width: int, depth: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of a Wan 2.1 VAE, scaled so that activations keep their size."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, shape in vae_shapes(width, depth).items():
        if name.endswith("gamma"):
            state[name] = torch.ones(shape)
        else:
            scale = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1
            state[name] = torch.randn(shape, generator=generator) * scale
    return state


def random_vae(width: int, device: str = "cpu", dtype: str = "float32") -> WanVAE:
    return sf_core.load_vae(random_vae_state(width), device, DTYPES[dtype])
