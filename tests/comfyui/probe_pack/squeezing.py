"""Probes that squeeze: memory that runs out, a card with a limit, another model that needs everything."""

from __future__ import annotations

import gc
import inspect
import sys
import weakref
from typing import Any

import comfy.model_management as mm
import torch
from comfy_api.latest import io

_collect, _free_memory, _get_free_memory = gc.collect, mm.free_memory, mm.get_free_memory
_caches: list[weakref.ref[Any]] = []  # KV caches when memory ran out
_alive: list[int] = []  # how many of them were alive each time ComfyUI was asked what is free
_get_total_memory = mm.get_total_memory
_limit: list[float] = []  # memory of the simulated card


def _kv_caches() -> list[Any]:
    (module,) = [m for name, m in sys.modules.items() if name.endswith("self-forcing.sf_core.model.kv_cache")]
    return [thing for thing in gc.get_objects() if type(thing) is vars(module)["RollingKVCache"]]


class ProbeOutOfMemory(io.ComfyNode):
    """At a call of attention, memory runs out; from then on nothing is collected until `ProbeFreed` runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Model.Input("model"), io.Int.Input("at", max=1_000_000)]
        return io.Schema(node_id="ProbeOutOfMemory", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model: Any, at: int) -> io.NodeOutput:
        calls = [0]

        def asked(*args: Any, **kwargs: Any) -> Any:
            _alive.append(sum(cache() is not None for cache in _caches))
            return _get_free_memory(*args, **kwargs)

        def override(func: Any, *args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == at:
                gc.disable()
                gc.collect = lambda *_: 0
                mm.get_free_memory = asked
                _caches[:] = [weakref.ref(cache) for cache in _kv_caches()]
                _alive.clear()
                raise torch.OutOfMemoryError("as told by the probe")
            return func(*args, **kwargs)

        clone = model.clone()
        clone.model_options["transformer_options"]["optimized_attention_override"] = override
        return io.NodeOutput(clone)


class ProbeVaeOutOfMemory(io.ComfyNode):
    """Memory runs out in the next calls of a method of the Wan VAE: in ``times`` of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Vae.Input("vae"), io.String.Input("call"), io.Int.Input("times", default=1)]
        return io.Schema(node_id="ProbeVaeOutOfMemory", inputs=inputs, outputs=[io.Vae.Output()])

    @classmethod
    def execute(cls, vae: Any, call: str, times: int) -> io.NodeOutput:
        (module,) = [m for name, m in sys.modules.items() if name.endswith("self-forcing.sf_core.vae.wan_vae")]
        kind = vars(module)["WanVAE"]
        real = vars(kind)[call]

        left = [times]

        def fail(*args: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                setattr(kind, call, real)
            raise torch.OutOfMemoryError("as told by the probe")

        setattr(kind, call, fail)
        return io.NodeOutput(vae)


class ProbeFreed(io.ComfyNode):
    """How many caches there were when memory ran out, and how many of them lived when free memory was measured."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeFreed", inputs=[], outputs=[], is_output_node=True)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls) -> io.NodeOutput:
        gc.enable()
        gc.collect, mm.get_free_memory = _collect, _get_free_memory
        return io.NodeOutput(ui={"facts": [{"caches": len(_caches), "alive": list(_alive)}]})


class ProbeArchivedDtype(io.ComfyNode):
    """A MODEL whose weights are to be cast to float16 on the device, as DynamicVRAM notes it on the modules."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeArchivedDtype", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        for module in model.model.modules():
            for name, _ in module.named_parameters(recurse=False):
                setattr(module, f"{name}_comfy_model_dtype", torch.float16)
        return io.NodeOutput(model)


class ProbeDemand(io.ComfyNode):
    """Another model needs all memory, under DynamicVRAM where ComfyUI has it; hands a session on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        session = io.Custom("SF_SESSION")
        return io.Schema(
            node_id="ProbeDemand", inputs=[session.Input("session")], outputs=[session.Output()], is_output_node=True
        )

    @classmethod
    def execute(cls, session: Any) -> io.NodeOutput:
        wan = session.core.model
        before = wan.shared.nbytes
        weights = [m for m in (entry.model for entry in mm.current_loaded_models) if m.is_clone(wan.patcher)]
        dynamic = "for_dynamic" in inspect.signature(mm.free_memory).parameters
        for model in weights:
            model.is_dynamic = lambda: True
        mm.free_memory(1e30, wan.device, **({"for_dynamic": True} if dynamic else {}))
        for model in weights:
            del model.is_dynamic
        kept = any(entry.model is model for model in weights for entry in mm.current_loaded_models)
        facts = {"before": before, "after": wan.shared.nbytes, "dynamic": dynamic, "weights": kept}
        return io.NodeOutput(session, ui={"facts": [facts]})


class ProbeTotal(io.ComfyNode):
    """A device with ``total`` bytes from now on; -1: the real one. Hands a model on, and runs each time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.Model.Input("model"), io.Int.Input("total", min=-1, max=2**50)]
        return io.Schema(node_id="ProbeTotal", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, model: Any, total: int) -> io.NodeOutput:
        def get_total_memory(device: Any = None, torch_total_too: bool = False) -> Any:
            return (total, total) if torch_total_too else total

        mm.get_total_memory = _get_total_memory if total < 0 else get_total_memory
        return io.NodeOutput(model)


def _used() -> int:
    return sum(int(entry.model.loaded_size()) for entry in mm.current_loaded_models)


class ProbeCard(io.ComfyNode):
    """A card that is ``short`` by so many bytes when room is next asked for; -1: the real one. Hands a session on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        session = io.Custom("SF_SESSION")
        inputs: list[Any] = [session.Input("session"), io.Int.Input("short", min=-1, max=2**40)]
        return io.Schema(node_id="ProbeCard", inputs=inputs, outputs=[session.Output()])

    @classmethod
    def execute(cls, session: Any, short: int) -> io.NodeOutput:
        _limit.clear()

        def free_memory(required: float, *args: Any, **kwargs: Any) -> Any:
            if not _limit:
                _limit.append(required - short + _used())
            return _free_memory(required, *args, **kwargs)

        def get_free_memory(device: Any = None, torch_free_too: bool = False) -> Any:
            free = _limit[0] - _used() if _limit else 2**40
            return (free, 0) if torch_free_too else free

        mm.free_memory, mm.get_free_memory = free_memory, get_free_memory
        if short < 0:
            mm.free_memory, mm.get_free_memory = _free_memory, _get_free_memory
        return io.NodeOutput(session)


NODES: list[type[io.ComfyNode]] = [
    ProbeOutOfMemory,
    ProbeVaeOutOfMemory,
    ProbeFreed,
    ProbeArchivedDtype,
    ProbeDemand,
    ProbeCard,
    ProbeTotal,
]
