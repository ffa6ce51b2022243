"""What several tests share: small random models, recorded noise, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import sf_core
from sf_core.model.architecture import WanArchitecture
from sf_core.model.wan import CausalWan

PARITY = Path(__file__).parent / "parity"
CASES: dict[str, Any] = json.loads((PARITY / "cases.json").read_text())
ROLLOUTS = sorted(case for case in CASES if "pipeline" in CASES[case] and case != "causal_bf16")
SIZE = (4, 4)  # of small latents: 4 tokens a frame


def random_model(
    layers: int = 4, dim: int = 32, heads: int = 2, seed: int = 0, text_len: int = 6, channels: int = 4
) -> CausalWan:
    """A Wan transformer with random weights that neither die out nor explode."""
    arch = WanArchitecture(
        dim=dim,
        ffn_dim=2 * dim,
        num_layers=layers,
        num_heads=heads,
        text_dim=8,
        text_len=text_len,
        freq_dim=16,
        in_dim=channels,
        out_dim=channels,
    )
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, parameter in CausalWan(arch).named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        scale = 0.1 if name.endswith("bias") else 0.7 if "modulation" in name else fan_in**-0.5
        state[name] = torch.randn(parameter.shape, generator=generator) * scale
        if "norm" in name and name.endswith("weight"):
            state[name] = 1 + 0.1 * state[name]
    return sf_core.load_model(state, num_heads=heads, text_len=text_len)


def prompt(number: int, batch: int = 1, rows: int = 5) -> Tensor:
    return torch.randn(batch, rows, 8, generator=torch.Generator().manual_seed(1000 + number))


def random_latents(frames: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, 4, frames, *SIZE, generator=torch.Generator().manual_seed(seed))


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Relative L2 distance."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Check that results are those of the authors' code, to the limits of tests/parity/README.md."""
    assert ours.shape == theirs.shape
    assert relative(ours, theirs) <= 5e-6
    assert float((ours - theirs).abs().max()) <= 5e-5


def sink_settings(draw: st.DrawFn, window: int | None) -> dict[str, Any]:
    """Any position of the sink that goes with ``window``."""
    position = draw(st.sampled_from(["absolute", "clamped"] + ["top_aligned"] * (window is not None)))
    if position != "top_aligned":
        return {"sink_position": position}
    return {"sink_position": position, "trained_frames": draw(st.integers(max(1, window or 1), (window or 1) + 5))}


class RecordedNoise:
    """The noise of a golden case."""

    def __init__(self, tensors: dict[str, Tensor], blocks: list[int]) -> None:
        self.tensors = tensors
        self.ends = [sum(blocks[: i + 1]) for i in range(len(blocks))]

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        if step == 0:
            return self.tensors["noise"][:, self.ends[chunk] - shape[2] : self.ends[chunk]].transpose(1, 2)
        recorded = self.tensors[f"renoise.c{chunk:02d}.s{step - 1}"]
        return recorded.reshape(shape[0], shape[2], shape[1], *shape[3:]).transpose(1, 2)


def golden_session(
    case: str, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[sf_core.Session, dict[str, Tensor], int]:
    """A session set up as the recorded run of ``case``, its tensors, and the number of chunks to sample."""
    settings = CASES[case]["pipeline"]
    model_settings = CASES[case]["model"]
    tensors = load_file(PARITY / f"{case}.safetensors")
    model = sf_core.load_model(PARITY / "weights_causal.safetensors", device, dtype, **model_settings)
    window = model_settings["local_attn_size"]
    config = sf_core.RolloutConfig(
        chunk_frames=settings["frames_per_block"],
        first_chunk_frames=1 if settings["independent_first_frame"] else None,
        window_frames=21 if window == -1 else window,
        # a cache larger than its window: the reference then does not read its sink
        sink_frames=0 if case == "rolling_bigcache" else model_settings["sink_size"],
        denoising_steps=tuple(settings["denoising_step_list"]),
        warp_steps=settings["warp_denoising_step"],
        shift=settings["timestep_shift"],
        context_noise=settings["context_noise"],
    )
    noise = RecordedNoise(tensors, settings["blocks"])
    session = sf_core.Session.start(
        model, tensors["prompt_embeds"].float(), (8, 8), config, batch=tensors["noise"].shape[0], noise=noise
    )
    if "initial_latent" in tensors:
        session = session.with_context(tensors["initial_latent"].transpose(1, 2))
    return session, tensors, len(settings["blocks"])
