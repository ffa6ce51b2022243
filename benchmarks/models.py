"""Random models of any size, sessions on them, and the options that set both."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import sf_core
from sf_core.cli.generate import DTYPES
from sf_core.model.architecture import WanArchitecture
from sf_core.vae.wan_vae import WanVAE, WanVAEConfig


def add_arguments(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Add the options of every benchmark: sizes of model and picture, window, threads; ``defaults`` by name."""
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
    """Add an option for a latent size."""
    text = "latent size, a token for 2 x 2; default: %(default)s"
    parser.add_argument(option, type=int, nargs=2, default=default, metavar=("ROWS", "COLUMNS"), help=text)


def architecture(args: argparse.Namespace) -> WanArchitecture:
    """Return the architecture of the options."""
    return WanArchitecture(
        dim=args.dim, ffn_dim=args.ffn, num_layers=args.layers, num_heads=args.heads,
        text_dim=args.text_dim, text_len=args.text_len,
    )  # fmt: skip


def random_state(arch: WanArchitecture, seed: int = 0, device: str = "cpu") -> dict[str, Tensor]:
    """Draw weights under Wan's names, scaled so that activations and latents keep their magnitude."""
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
    """Build a transformer with random weights."""
    state = random_state(arch, seed, device)
    return sf_core.load_model(state, device, DTYPES[dtype], num_heads=arch.num_heads, text_len=arch.text_len)


def random_prompt(arch: WanArchitecture, seed: int = 0) -> Tensor:
    """Draw text embeddings [1, text_len, text_dim], of full length so that no implementation has to pad them."""
    return torch.randn(1, arch.text_len, arch.text_dim, generator=torch.Generator().manual_seed(seed + 1))


def random_latents(arch: WanArchitecture, frames: int, size: Sequence[int], seed: int = 0) -> Tensor:
    """Draw latents [1, C, F, H, W]."""
    shape = (1, arch.in_dim, frames, *size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 2))


def start_session(model: sf_core.CausalWan, args: argparse.Namespace, context: int = 0) -> sf_core.Session:
    """Start a session with the options ``args``, after ``context`` random latent frames."""
    size = (args.latent[0], args.latent[1])
    config = sf_core.RolloutConfig(chunk_frames=args.chunk, window_frames=args.window, sink_frames=args.sink)
    prompt = random_prompt(model.arch, args.seed)
    session = sf_core.Session.start(model, prompt, size, config, seed=args.seed)
    return session.with_context(random_latents(model.arch, context, size, args.seed)) if context else session


def context_frames(args: argparse.Namespace) -> int:
    """Count the context frames after which a chunk sees a full window, or nearly if chunks do not divide it."""
    return int(args.window // args.chunk - 1) * int(args.chunk)


class Rollout:
    """A session that is continued chunk by chunk."""

    def __init__(self, session: sf_core.Session) -> None:
        self.session = session

    def chunk(self) -> Tensor:
        """Sample a chunk: the cache pass of the chunk before, then the denoising steps."""
        self.session, latents = self.session.next_chunk()
        return latents


def random_vae_state(width: int, seed: int = 0) -> dict[str, Tensor]:
    """Draw weights of a Wan 2.1 VAE, scaled so that activations keep their magnitude."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, shape in WanVAEConfig(width).shapes.items():
        if name.endswith("gamma"):
            state[name] = torch.ones(shape)
        else:
            scale = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1
            state[name] = torch.randn(shape, generator=generator) * scale
    return state


def random_vae(width: int, device: str = "cpu", dtype: str = "float32") -> WanVAE:
    """Build a VAE with random weights."""
    return sf_core.load_vae(random_vae_state(width), device, DTYPES[dtype])
