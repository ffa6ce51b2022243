"""Driver of the reference's model (github.com/guandeh17/Self-Forcing), imported from a checkout of it.

Its pipeline is written for 30 blocks, 12 heads and 1560 tokens a frame, so its `CausalWanModel` and its scheduler are
called here in the order in which its pipeline/causal_inference.py and demo.py call them: the denoising steps, then the
cache pass, then the latents are returned.

Two of its functions are replaced so that it runs here in the arithmetic that is compared: its `attention` casts to
bfloat16 and its `flash_attention` requires CUDA. Both become torch's scaled_dot_product_attention in float32, which
`sf_core` calls, too.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import sf_core


class Reference:
    """A rollout of the reference's model with the weights, prompt, noise, window and sink of ``session``."""

    def __init__(self, checkout: Path, state: Mapping[str, Tensor], session: sf_core.Session) -> None:
        arch, config = session.model.arch, session.config
        assert config.window_frames is not None
        assert session.batch == 1
        causal_model, scheduler = _import(checkout)
        self.model = causal_model.CausalWanModel(
            patch_size=arch.patch_size, text_len=arch.text_len, in_dim=arch.in_dim, dim=arch.dim, ffn_dim=arch.ffn_dim,
            freq_dim=arch.freq_dim, text_dim=arch.text_dim, out_dim=arch.out_dim, num_heads=arch.num_heads,
            num_layers=arch.num_layers, local_attn_size=config.window_frames, sink_size=config.sink_frames,
        )  # fmt: skip
        self.model.load_state_dict(dict(state))
        self.model.eval().requires_grad_(False)
        rows, columns = arch.token_grid(session.latent_size)
        self.frame_tokens = rows * columns
        self.window_tokens = config.window_frames * self.frame_tokens
        for block in self.model.blocks:
            block.self_attn.max_attention_size = self.window_tokens  # it assumes 1560 tokens a frame
        self.scheduler = scheduler.FlowMatchScheduler(shift=config.shift, sigma_min=0.0, extra_one_step=True)
        self.scheduler.set_timesteps(1000, training=True)
        table = torch.cat([self.scheduler.timesteps, torch.zeros(1)])
        self.steps = [table[1000 - int(step)] for step in config.denoising_steps]
        self.session = session  # its settings only
        self.reset()

    def reset(self) -> None:
        """Start a new video with new caches."""
        arch = self.model.config
        width = arch.dim // arch.num_heads

        def buffer(tokens: int) -> Tensor:
            return torch.zeros(1, tokens, arch.num_heads, width)

        def index() -> Tensor:
            return torch.zeros(1, dtype=torch.long)

        self.kv_cache = [
            {
                "k": buffer(self.window_tokens), "v": buffer(self.window_tokens),
                "global_end_index": index(), "local_end_index": index(),
            }
            for _ in range(arch.num_layers)
        ]  # fmt: skip
        self.text_cache = [
            {"k": buffer(arch.text_len), "v": buffer(arch.text_len), "is_init": False} for _ in range(arch.num_layers)
        ]
        self.frames = self.chunks = 0

    @torch.no_grad()
    def give(self, latents: Tensor) -> None:
        """Add given latents [1, C, F, H, W] to the video."""
        for part in torch.split(latents, self.session.config.chunk_frames, dim=2):
            self._flow(part, torch.zeros(1, part.shape[2], dtype=torch.long))
            self.frames += part.shape[2]

    @torch.no_grad()
    def chunk(self) -> Tensor:
        """Sample a chunk, write it to the cache, and return it."""
        config, (rows, columns) = self.session.config, self.session.latent_size
        shape = (1, self.model.config.in_dim, config.chunk_frames, rows, columns)
        x = self.session.noise(self.chunks, 0, shape)
        x0 = x
        for index, step in enumerate(self.steps):
            timestep = torch.ones(1, config.chunk_frames, dtype=torch.long) * step
            x0 = self._clean(x, self._flow(x, timestep), step)
            if index + 1 < len(self.steps):
                noise = self.session.noise(self.chunks, index + 1, shape)
                x = self.scheduler.add_noise(x0, noise, self.steps[index + 1].expand(1))
        self._flow(x0, torch.zeros(1, config.chunk_frames))
        self.frames += config.chunk_frames
        self.chunks += 1
        return x0

    def _flow(self, x: Tensor, timestep: Tensor) -> Tensor:
        flow: Tensor = self.model(
            x, t=timestep, context=self.session.prompt.text, seq_len=32760, kv_cache=self.kv_cache,
            crossattn_cache=self.text_cache, current_start=self.frames * self.frame_tokens,
        )  # fmt: skip
        return flow

    def _clean(self, x: Tensor, flow: Tensor, step: Tensor) -> Tensor:
        nearest = torch.argmin((self.scheduler.timesteps - step).abs())
        sigma: Tensor = self.scheduler.sigmas[nearest].double()
        return (x.double() - sigma * flow.double()).to(x.dtype)


def _import(checkout: Path) -> tuple[Any, Any]:
    """Import wan.modules.causal_model and utils.scheduler without the imports of their packages."""
    if not (checkout / "wan" / "modules" / "causal_model.py").exists():
        raise SystemExit(f"{checkout} is no checkout of Self-Forcing: it has no wan/modules/causal_model.py")
    for name in ("wan", "wan.modules"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout.joinpath(*name.split(".")))]
        sys.modules[name] = package
    causal_model = importlib.import_module("wan.modules.causal_model")
    causal_model.attention = _attention  # type: ignore[attr-defined]
    sys.modules["wan.modules.model"].flash_attention = _attention  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("reference_scheduler", checkout / "utils" / "scheduler.py")
    assert spec is not None
    assert spec.loader is not None
    scheduler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scheduler)
    return causal_model, scheduler


def _attention(q: Tensor, k: Tensor, v: Tensor, **_: object) -> Tensor:
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
