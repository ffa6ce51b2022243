"""A probe that draws: each frame's number into the frame, so that a picture of it says which it is."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

BITS, CELL = 12, 5  # black or white squares from the left, the lowest bit first
HEIGHT = 10


def draw_number(frame: Tensor, number: int) -> None:
    """frame: [H, W, 3], written to."""
    for bit in range(BITS):
        frame[:HEIGHT, CELL * bit : CELL * (bit + 1)] = float(number >> bit & 1)


class Numbered:
    """A decoder of the pack's whose frames bear their numbers; with an edge in pixels, on nothing but noise."""

    def __init__(self, inner: Any, edge: int) -> None:
        self._inner, self._edge = inner, edge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, latents: Tensor, at: int, history: Tensor | None = None) -> Tensor:
        frames: Tensor = self._inner(latents, at, history).clone()
        if self._edge:
            frames = torch.rand(1, frames.shape[1], self._edge, self._edge, 3)
        first = 4 * at - 3 if at else 0
        for number in range(frames.shape[1]):
            draw_number(frames[0, number], first + number)
        return frames


class ProbeNumbered(io.ComfyNode):
    """A copy of the VAE with which the pack decodes frames that bear their numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Vae.Input("vae"), io.Int.Input("edge", default=0, optional=True)]
        return io.Schema(node_id="ProbeNumbered", inputs=inputs, outputs=[io.Vae.Output()])

    @classmethod
    def execute(cls, vae: Any, edge: int = 0) -> io.NodeOutput:
        numbered = copy.copy(vae)
        net = numbered.first_stage_model = copy.copy(vae.first_stage_model)
        net.__dict__.pop("_sf_vae", None)  # the original's
        ours = next(m for name, m in sys.modules.items() if name.endswith("nodes.adapters.vae")).open_vae(numbered)
        plain = ours.stream_decoder
        ours.stream_decoder = lambda: Numbered(plain(), edge)
        net.numbered = [ours]  # the pack itself holds it weakly
        return io.NodeOutput(numbered)


NODES = [ProbeNumbered]
