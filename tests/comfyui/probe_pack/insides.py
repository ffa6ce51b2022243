"""Probes of the pack's own modules, which only a real ComfyUI can import."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import comfy.model_management as mm
import numpy as np
import torch
from comfy.ldm.modules.attention import attention_sub_quad
from comfy_api.latest import io
from torch._dynamo.utils import counters

_runs: list[weakref.ref[Any]] = []


def _module(ending: str) -> Any:
    (module,) = [m for name, m in sys.modules.items() if name.endswith(f"self-forcing.{ending}")]
    return module


class ProbeFloat64(io.ComfyNode):
    """The dtype of times on the device of a session's MODEL, as ComfyUI says of the device; nothing of it stays."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Custom("SF_SESSION").Input("session")]
        return io.Schema(node_id="ProbeFloat64", inputs=inputs, outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, session: Any) -> io.NodeOutput:
        schedule, wan = _module("sf_core.schedule"), session.core.model
        kinds, supports = schedule._WITH_FLOAT64, getattr(mm, "supports_fp64", None)
        before, facts = set(kinds), {}
        try:
            for answer in (True, False):
                mm.supports_fp64 = lambda device=None, answer=answer: answer
                type(wan)(wan.patcher)  # as a node begins with a MODEL
                facts[str(answer)] = str(schedule.wide_dtype(wan.device))
        finally:
            kinds |= before
            if supports is None:
                del mm.supports_fp64
            else:
                mm.supports_fp64 = supports
        return io.NodeOutput(ui={"facts": [facts]})


class ProbeReserved(io.ComfyNode):
    """The memory of a GPU of 16 GiB that runs may take, by the bytes that --reserve-vram leaves to other programs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Model.Input("model")]
        return io.Schema(node_id="ProbeReserved", inputs=inputs, outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        total, reserved, facts = mm.get_total_memory, mm.EXTRA_RESERVED_VRAM, {}
        mm.get_total_memory = lambda *args, **kwargs: 16 * 2**30
        try:
            for gib in (0, 4):
                mm.EXTRA_RESERVED_VRAM = gib * 2**30
                room = _module("nodes.adapters.memory").device_memory(torch.device("cuda"), model).room
                facts[str(gib)] = room / 2**30
        finally:
            mm.get_total_memory, mm.EXTRA_RESERVED_VRAM = total, reserved
        return io.NodeOutput(ui={"facts": [facts]})


class ProbeArithmetic(io.ComfyNode):
    """How many states a session's MODEL has, over ways in which ComfyUI may have been started to compute."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Custom("SF_SESSION").Input("session")]
        return io.Schema(node_id="ProbeArithmetic", inputs=inputs, outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, session: Any) -> io.NodeOutput:
        module, model = _module("nodes.adapters.model"), session.core.model
        args, kernel = module.args, module.optimized_attention
        fast, deterministic = args.fast, args.deterministic
        states = [model.state_key()]
        try:
            args.fast = {"fp16_accumulation"}
            states.append(model.state_key())
            args.fast, args.deterministic = fast, True
            states.append(model.state_key())
            args.deterministic = deterministic
            module.optimized_attention = attention_sub_quad
            states.append(model.state_key())
        finally:
            args.fast, args.deterministic, module.optimized_attention = fast, deterministic, kernel
        states.append(model.state_key())
        return io.NodeOutput(ui={"facts": [{"states": len(set(states)), "same": states[0] == states[-1]}]})


class ProbeChecked(io.ComfyNode):
    """How often a checked node's schema is made in three executions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeChecked", inputs=[], outputs=[], is_output_node=True)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        made: list[int] = []
        schema = io.Schema(node_id="Counted", inputs=[io.Int.Input("number", min=0, max=9)])

        class Counted:
            @classmethod
            def define_schema(cls) -> io.Schema:
                made.append(1)
                return schema

        execute = _module("nodes.inputs").checked(lambda node, number: number)
        # ComfyUI makes a class of the node's for each execution
        values = [execute(type("Clone", (Counted,), {}), number=number) for number in (1, 2.0, 3)]
        return io.NodeOutput(ui={"facts": [{"made": len(made), "values": values, "refused": cls._refused()}]})

    @classmethod
    def _refused(cls) -> list[str]:
        """What is said of values of a wrong kind, as wires of any type carry them."""
        kinds = [io.Boolean.Input("yes"), io.Combo.Input("file", options=["a"]), io.String.Input("text")]

        class Node:
            @classmethod
            def define_schema(cls) -> io.Schema:
                return io.Schema(node_id="Kinds", inputs=list(kinds))

        execute = _module("nodes.inputs").checked(lambda node, **values: values)
        assert [execute(Node, yes=yes)["yes"] for yes in (True, 0, np.bool_(True))] == [True, False, True]
        said = []
        for wrong in ({"yes": "no"}, {"yes": 2}, {"yes": torch.ones(2)}, {"file": 3}, {"file": None}, {"text": [1]}):
            try:
                execute(Node, **wrong)
            except ValueError as error:
                said.append(str(error))
        return said


class ProbeRunBegins(io.ComfyNode):
    """From here on runs are noted, and nothing is collected until `ProbeRunGone`. Hands a session on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        session = io.Custom("SF_SESSION")
        return io.Schema(node_id="ProbeRunBegins", inputs=[session.Input("session")], outputs=[session.Output()])

    @classmethod
    def execute(cls, session: Any) -> io.NodeOutput:
        kind = _module("nodes.live.run").Run
        close = kind.close

        def noted(run: Any) -> None:
            _runs.append(weakref.ref(run))
            kind.close = close
            run.close()

        _runs.clear()
        kind.close = noted
        gc.collect()
        gc.disable()
        return io.NodeOutput(session)


class ProbeRunGone(io.ComfyNode):
    """How many runs there were since `ProbeRunBegins`, and how many of them are still in memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.AnyType.Input("after")]
        return io.Schema(node_id="ProbeRunGone", inputs=inputs, outputs=[], is_output_node=True)

    @classmethod
    def execute(cls, after: Any) -> io.NodeOutput:
        gc.enable()
        facts = {"runs": len(_runs), "alive": sum(run() is not None for run in _runs)}
        return io.NodeOutput(ui={"facts": [facts]})


class ProbeCompiled(io.ComfyNode):
    """How many graphs this process has compiled, once ``session`` is there. Runs each time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeCompiled",
            display_name="Probe: compiled graphs",
            category="probe",
            inputs=[io.Custom("SF_SESSION").Input("session")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, session: Any) -> io.NodeOutput:
        return io.NodeOutput(ui={"graphs": [int(counters["stats"]["unique_graphs"])]})


NODES: list[type[io.ComfyNode]] = [
    ProbeFloat64,
    ProbeReserved,
    ProbeArithmetic,
    ProbeChecked,
    ProbeRunBegins,
    ProbeRunGone,
    ProbeCompiled,
]
