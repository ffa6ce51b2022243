"""Driver of the causal Wan model of ComfyUI's core, imported from a checkout of ComfyUI.

`CausalWanModel.forward_block` and its caches are called in the order of `sample_ar_video`: the denoising steps, then
the cache pass. Its cache is unbounded: memory for the whole video is allocated at the start and nothing is evicted.
It runs on the CPU with torch's attention (as with ComfyUI's --use-pytorch-cross-attention): its default is slower on a
CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

import sf_core
from sf_core.schedule import flow_schedule


class Core:
    """A rollout of ComfyUI's model with the weights, prompt and noise of ``session``, of at most ``frames``."""

    def __init__(self, checkout: Path, state: Mapping[str, Tensor], session: sf_core.Session, frames: int) -> None:
        if not (checkout / "comfy" / "ldm" / "wan" / "ar_model.py").exists():
            raise SystemExit(f"{checkout} is no ComfyUI with a causal Wan: it has no comfy/ldm/wan/ar_model.py")
        if str(checkout) not in sys.path:
            sys.path.insert(0, str(checkout))
        from comfy.cli_args import args as options

        options.cpu = options.use_pytorch_cross_attention = True  # before anything else of it is imported
        import comfy.ops
        from comfy.ldm.wan.ar_model import CausalWanModel

        arch, config = session.model.arch, session.config
        assert session.batch == 1
        self.model = CausalWanModel(
            patch_size=arch.patch_size, text_len=arch.text_len, in_dim=arch.in_dim, dim=arch.dim, ffn_dim=arch.ffn_dim,
            freq_dim=arch.freq_dim, text_dim=arch.text_dim, out_dim=arch.out_dim, num_heads=arch.num_heads,
            num_layers=arch.num_layers, dtype=torch.float32, operations=comfy.ops.disable_weight_init,
        )  # fmt: skip
        self.model.load_state_dict(dict(state))
        self.model.eval().requires_grad_(False)
        rows, columns = arch.token_grid(session.latent_size)
        self.frame_tokens = rows * columns
        schedule = flow_schedule(config.shift)
        self.sigmas = [torch.tensor(schedule.sigma(step)) for step in config.timesteps(0)]
        self.kv_caches = self.model.init_kv_caches(1, frames * self.frame_tokens, torch.device("cpu"), torch.float32)
        self.text_caches = self.model.init_crossattn_caches(1, torch.device("cpu"), torch.float32)
        self.session = session  # its settings only
        self.frames = self.chunks = 0

    def restart(self) -> None:
        """Start a new video in the same memory."""
        self.model.reset_kv_caches(self.kv_caches)
        self.model.reset_crossattn_caches(self.text_caches)
        self.frames = self.chunks = 0

    @torch.inference_mode()
    def give(self, latents: Tensor) -> None:
        """Add given latents [1, C, F, H, W] to the video."""
        for part in torch.split(latents, self.session.config.chunk_frames, dim=2):
            self._flow(part, torch.zeros(()))
            self.frames += part.shape[2]

    @torch.inference_mode()
    def chunk(self) -> Tensor:
        """Sample a chunk and write it to the cache."""
        config, (rows, columns) = self.session.config, self.session.latent_size
        shape = (1, self.model.in_dim, config.chunk_frames, rows, columns)
        x = self.session.noise(self.chunks, 0, shape)
        for index, sigma in enumerate(self.sigmas):
            x = x - self._flow(x, sigma) * sigma
            if index + 1 < len(self.sigmas):
                following = self.sigmas[index + 1]
                x = (1.0 - following) * x + following * self.session.noise(self.chunks, index + 1, shape)
            self._step_back(config.chunk_frames)
        self._flow(x, torch.zeros(()))
        self.frames += config.chunk_frames
        self.chunks += 1
        return x

    def repeat_chunk(self) -> None:
        """Sample the chunk after the newest one, and discard it: the same cost each time."""
        self.chunk()
        self.chunks -= 1
        self.frames -= self.session.config.chunk_frames
        self._step_back(self.session.config.chunk_frames)

    def _step_back(self, frames: int) -> None:
        for cache in self.kv_caches:
            cache["end"] -= frames * self.frame_tokens

    def _flow(self, x: Tensor, sigma: Tensor) -> Tensor:
        timestep = (sigma * 1000).expand(1, x.shape[2])
        text = self.session.prompt.text
        flow: Tensor = self.model.forward_block(x, timestep, text, self.frames, self.kv_caches, self.text_caches)
        return flow
