"""Probes that meddle: attention that counts, stops or fails; weights that may not be read; models pushed out."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import comfy.model_management as mm
import torch
from comfy.patcher_extension import CallbacksMP
from comfy_api.latest import io

from .nodes.reader import read_weight

calls: dict[str, int] = {}
functions: set[str] = set()  # that attention would have been computed by


class ProbeAttention(io.ComfyNode):
    """An attention override that counts its calls, and at one of them interrupts, or fails for lack of memory.

    Or rests for ``at`` milliseconds at each, as a larger model would take.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeAttention",
            inputs=[
                io.Model.Input("model"),
                io.String.Input("name", default="attention"),
                io.Int.Input("at", default=0, optional=True),
                io.Combo.Input(
                    "does", options=["nothing", "interrupt", "out of memory", "rest"], default="nothing", optional=True
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, name: str, at: int = 0, does: str = "nothing") -> io.NodeOutput:
        calls[name] = 0

        def override(func: Any, *args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            functions.add(func.__name__)
            assert "block_index" in kwargs["transformer_options"]
            if calls[name] == at and does == "interrupt":
                mm.interrupt_current_processing()
            if calls[name] == at and does == "out of memory":
                raise torch.OutOfMemoryError("as told by the probe")
            if does == "rest":
                time.sleep(at / 1000)
            return func(*args, **kwargs)

        clone = model.clone()
        clone.model_options["transformer_options"]["optimized_attention_override"] = override
        return io.NodeOutput(clone)


class ProbeCalls(io.ComfyNode):
    """How often that override was called. Runs each time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeCalls",
            inputs=[io.String.Input("name", default="attention"), io.AnyType.Input("after", optional=True)],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, name: str, after: Any = None) -> io.NodeOutput:
        return io.NodeOutput(ui={"calls": [calls.get(name, -1)], "functions": sorted(functions)})


class ProbePoison(io.ComfyNode):
    """Raises when the pack or its core reads the ``weight`` of a module of the transformer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbePoison",
            inputs=[io.Model.Input("model"), io.Boolean.Input("check", default=False)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, check: bool) -> io.NodeOutput:
        for module in model.model.diffusion_model.modules():
            if "weight" in module._parameters:
                module.__class__ = _poisoned(module.__class__)
        if check:  # that the poison works
            read_weight(model.model.diffusion_model.head.head)
        return io.NodeOutput(model)


def _poisoned(kind: type) -> type:
    def weight(self: Any) -> Any:
        reader = sys._getframe(1).f_code.co_filename
        if "/sf_core/" in reader or "/nodes/" in reader:
            raise AssertionError(f"{reader} reads the weight of a {kind.__name__}")
        return self._parameters["weight"]

    return type(f"Poisoned{kind.__name__}", (kind,), {"weight": property(weight)})


class ProbeUnload(io.ComfyNode):
    """Pushes all models out of the device; hands a session on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        session = io.Custom("SF_SESSION")
        return io.Schema(node_id="ProbeUnload", inputs=[session.Input("session")], outputs=[session.Output()])

    @classmethod
    def execute(cls, session: Any) -> io.NodeOutput:
        mm.unload_all_models()
        return io.NodeOutput(session)


class ProbeAfter(io.ComfyNode):
    """Hands a session on once something else is there: the order in which nodes run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        session = io.Custom("SF_SESSION")
        inputs: list[Any] = [session.Input("session"), io.AnyType.Input("after")]
        return io.Schema(node_id="ProbeAfter", inputs=inputs, outputs=[session.Output()])

    @classmethod
    def execute(cls, session: Any, after: Any) -> io.NodeOutput:
        return io.NodeOutput(session)


_is_device_cpu, _vram_state = mm.is_device_cpu, mm.vram_state
offloaded: list[int] = []  # patches that were left to the modules, each time a model was loaded


class ProbeNoVram(io.ComfyNode):
    """From here on ComfyUI treats the device as one without any memory to spare: weights stay outside."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Model.Input("model"), io.Boolean.Input("on", default=True)]
        return io.Schema(node_id="ProbeNoVram", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model: Any, on: bool) -> io.NodeOutput:
        mm.is_device_cpu = (lambda device: False) if on else _is_device_cpu
        mm.vram_state = mm.VRAMState.NO_VRAM if on else _vram_state
        clone = model.clone()
        offloaded.clear()
        note = lambda patcher, *_: offloaded.append(patcher.lowvram_patch_counter())  # noqa: E731
        clone.add_callback_with_key(CallbacksMP.ON_LOAD, "probe", note)
        return io.NodeOutput(clone)


class ProbeOffloaded(io.ComfyNode):
    """How many patches were left to the modules at the last load; the device has its memory again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeOffloaded", inputs=[], outputs=[], is_output_node=True)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls) -> io.NodeOutput:
        mm.is_device_cpu, mm.vram_state = _is_device_cpu, _vram_state
        return io.NodeOutput(ui={"offloaded": [offloaded[-1] if offloaded else -1]})


class ProbeSmallJournal(io.ComfyNode):
    """From here on the pack keeps only so many chunks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeSmallJournal",
            inputs=[io.Int.Input("chunks", max=1_000_000)],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, chunks: int) -> io.NodeOutput:
        (journal,) = [
            module for name, module in sys.modules.items() if name.endswith("self-forcing.nodes.live.chunk_cache")
        ]
        vars(journal)["CHUNKS_KEPT"] = chunks
        return io.NodeOutput(ui={"chunks": [chunks]})


class ProbeCompileOptions(io.ComfyNode):
    """A MODEL that asks for torch.compile with these options, in JSON, as nodes of other packs do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Model.Input("model"), io.String.Input("options")]
        return io.Schema(node_id="ProbeCompileOptions", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model: Any, options: str) -> io.NodeOutput:
        clone = model.clone()
        asked = {"guard_filter_fn": lambda entries: [True] * len(entries), **json.loads(options)}
        clone.model_options["torch_compile_kwargs"] = {"backend": "inductor", "mode": None, "options": asked}
        return io.NodeOutput(clone)


NODES: list[type[io.ComfyNode]] = [
    ProbeAttention,
    ProbeCalls,
    ProbeCompileOptions,
    ProbePoison,
    ProbeUnload,
    ProbeAfter,
    ProbeNoVram,
    ProbeOffloaded,
    ProbeSmallJournal,
]
