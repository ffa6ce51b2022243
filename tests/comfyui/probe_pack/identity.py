"""Probes of what the pack knows of a MODEL: its name, its state, its attention."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import torch
from comfy.cli_args import args
from comfy_api.latest import io


def _pack(module: str) -> Any:
    (found,) = [m for name, m in sys.modules.items() if name.endswith(f"self-forcing.nodes.adapters.{module}")]
    return found


def _load_as_dynamic_vram_does(net: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast, in place and without a backup, what belongs to modules that have modules inside, as core does on a GPU."""
    for module in net.modules():
        if any(True for _ in module.children()):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


class ProbeModel(io.ComfyNode):
    """What the pack calls a MODEL, and how its weights are stored. ``dynamic``: as if it was loaded on a GPU before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeModel",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("dynamic", options=["no", "before", "after"], default="no"),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, model: Any, dynamic: str = "no") -> io.NodeOutput:
        net = model.model.diffusion_model
        if dynamic != "no":  # the file's values, and the dtype that ComfyUI gives them on a GPU
            for module in net.modules():
                for name, _ in module.named_parameters(recurse=False):
                    setattr(module, f"{name}_comfy_model_dtype", torch.float16)
        if dynamic == "after":
            _load_as_dynamic_vram_does(net, torch.float16)
        wan = _pack("model").HostedWan(model)
        again = getattr(model, "cached_patcher_init", None)
        facts = {
            "fingerprint": wan.fingerprint,
            "state": wan.state_key().hex(),
            "description": wan.description(),
            "bytes": sum(getattr(p, "_qdata", p).nbytes for p in net.blocks.parameters() if p.ndim == 2),
            "made_again": again is not None and type(again[0](*again[1]).model).__name__ == type(model.model).__name__,
        }
        return io.NodeOutput(ui={"facts": [facts]})


class ProbeHopper(io.ComfyNode):
    """Which attention the pack calls where the GPU is of Hopper's kind, and where it is not."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Model.Input("model"), io.Boolean.Input("chosen", default=False)]
        return io.Schema(node_id="ProbeHopper", inputs=inputs, outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, model: Any, chosen: bool = False) -> io.NodeOutput:
        module, q = _pack("model"), torch.zeros(1, 4, 2, 128)
        called: dict[str, int] = {}

        class OnGPU(module.HostedWan):  # type: ignore[name-defined]
            device, dtype = torch.device("cuda"), torch.bfloat16

        for name, capability in (("hopper", (9, 0)), ("ada", (8, 9))):
            with (
                mock.patch.object(torch.cuda, "get_device_capability", return_value=capability),
                mock.patch.object(module, "sdpa", return_value=q) as sdpa,
                mock.patch.object(args, "use_pytorch_cross_attention", chosen),
            ):
                wan = OnGPU(model)
                wan.use_attention()
                assert wan.attend(0, q, q, q).shape == q.shape
                called[name] = sdpa.call_count
        return io.NodeOutput(ui={"called": [called]})


class ProbeOutOfMemoryErrors(io.ComfyNode):
    """Which errors the pack takes for a device that ran out of memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeOutOfMemoryErrors", inputs=[], outputs=[], is_output_node=True)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        errors = {
            "torch": torch.OutOfMemoryError("CUDA out of memory"),
            "accelerator": getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory"),
            "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "cpu on Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
            "other": RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        }
        found = {name: _pack("memory").is_out_of_memory(error) for name, error in errors.items()}
        return io.NodeOutput(ui={"found": [found]})


NODES: list[type[io.ComfyNode]] = [ProbeModel, ProbeHopper, ProbeOutOfMemoryErrors]
