"""Probes that give: prompts without a text encoder, the noise of ComfyUI's own autoregressive sampler."""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_patcher
import comfy.sd
import torch
from comfy_api.latest import io
from torch import Tensor


class ProbeConditioning(io.ComfyNode):
    """Random embeddings, as many rows of such a width."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeConditioning",
            inputs=[
                io.Int.Input("seed", default=0),
                io.Int.Input("rows", default=512, max=4096),
                io.Int.Input("width", default=4096, max=8192),
                io.Float.Input("scale", default=0.2, max=1e38),
                io.Int.Input("prompts", default=1),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, seed: int, rows: int, width: int, scale: float, prompts: int) -> io.NodeOutput:
        text = torch.randn(1, rows, width, generator=torch.Generator().manual_seed(seed)) * scale
        return io.NodeOutput([[text, {}] for _ in range(prompts)])


@dataclass(frozen=True)
class CoreNoise:
    """What core's sampler draws: one field for the whole clip, then fresh noise by seed, chunk and step."""

    seed: int
    frames: int
    chunk_frames: int

    def __call__(self, chunk: int, step: int, shape: tuple[int, ...]) -> Tensor:
        if step:
            generator = torch.Generator().manual_seed(self.seed + chunk * 1000 + step - 1)
            return torch.randn(shape, generator=generator)
        clip = (*shape[:2], self.frames, *shape[3:])
        field = torch.randn(clip, generator=torch.Generator().manual_seed(self.seed))
        first = chunk * self.chunk_frames
        return field[:, :, first : first + shape[2]]


class ProbeCoreNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        session = io.Custom("SF_SESSION")
        return io.Schema(
            node_id="ProbeCoreNoise",
            inputs=[session.Input("session"), io.Int.Input("seed", default=0), io.Int.Input("frames", default=21)],
            outputs=[session.Output()],
        )

    @classmethod
    def execute(cls, session: Any, seed: int, frames: int) -> io.NodeOutput:
        noise = CoreNoise(seed, frames, session.core.config.chunk_frames)
        return io.NodeOutput(replace(session, core=replace(session.core, noise=noise)))


class ProbeFrames(io.ComfyNode):
    """Pictures that change smoothly with time and place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeFrames",
            inputs=[
                io.Int.Input("frames", default=1, max=1000),
                io.Int.Input("width", default=64, max=4096),
                io.Int.Input("height", default=64, max=4096),
                io.Int.Input("channels", default=3, max=4, optional=True),
                io.String.Input("by", default="1", optional=True),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, frames: int, width: int, height: int, channels: int = 3, by: str = "1") -> io.NodeOutput:
        t = torch.linspace(0, 1, frames).view(-1, 1, 1)
        y, x = torch.linspace(0, 1, height).view(1, -1, 1), torch.linspace(0, 1, width).view(1, 1, -1)
        waves = [0.5 + 0.5 * torch.sin(6 * (x + t) + phase * y) for phase in (1, 2, 3, 4)[:channels]]
        return io.NodeOutput(torch.stack(waves, dim=-1) * float(by))


class AnyWords(torch.nn.Module):
    """Random embeddings of umT5's shape for any text, the same each time; with the methods of a text model."""

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[Tensor, None]:
        generator = torch.Generator().manual_seed(zlib.crc32(tokens["tiny"].encode()))
        return torch.randn(1, 512, 4096, generator=generator) * 0.2, None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """There are none."""

    def reset_clip_options(self) -> None:
        """There are none."""


class ProbeTextEncoder(io.ComfyNode):
    """A CLIP that stands in for umT5 XXL, of which ComfyUI knows no smaller one. It is made from the tiny demo's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeTextEncoder", inputs=[io.Clip.Input("clip")], outputs=[io.Clip.Output()])

    @classmethod
    def execute(cls, clip: Any) -> io.NodeOutput:
        clip = copy.copy(clip)  # other graphs get the given one from ComfyUI's cache
        clip.cond_stage_model = AnyWords()
        device = torch.device("cpu")
        clip.patcher = comfy.model_patcher.ModelPatcher(clip.cond_stage_model, device, device)
        return io.NodeOutput(clip)


class ProbeOtherModel(io.ComfyNode):
    """A MODEL of another family, as far as anybody looks before sampling with it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeOtherModel", inputs=[], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        class SD15(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.diffusion_model = torch.nn.Linear(2, 2)

        return io.NodeOutput(comfy.model_patcher.ModelPatcher(SD15(), torch.device("cpu"), torch.device("cpu")))


class ProbeOtherVAE(io.ComfyNode):
    """A VAE with the names of Wan 2.2's weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeOtherVAE",
            inputs=[io.Combo.Input("family", options=["wan 2.2"])],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, family: str) -> io.NodeOutput:
        import comfy.ldm.wan.vae2_2 as wan22

        vae = comfy.sd.VAE.__new__(comfy.sd.VAE)
        vae.first_stage_model = wan22.WanVAE(dim=8, dec_dim=8, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=1)
        vae.device, vae.vae_dtype = torch.device("cpu"), torch.float32
        fill(vae.first_stage_model)
        return io.NodeOutput(vae)


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    """Draw weights; ComfyUI's layers are made without any, in memory that may hold NaN."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if name.endswith("gamma"):
            weight.fill_(1)
        elif weight.ndim > 1:
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
        else:
            weight.zero_()


NODES: list[type[io.ComfyNode]] = [
    ProbeConditioning,
    ProbeCoreNoise,
    ProbeFrames,
    ProbeTextEncoder,
    ProbeOtherModel,
    ProbeOtherVAE,
]
