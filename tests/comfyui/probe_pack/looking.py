"""Probes that look: they write tensors to files, and say what is live."""

from __future__ import annotations

import gc
import pickle
import sys
import weakref
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import folder_paths
import torch
from comfy_api.latest import io
from safetensors.torch import save_file

_seen: list[weakref.ref[Any]] = []  # what `ProbeSession` was shown: the pack's large things, if they still live
requests: list[int] = []  # bytes that ComfyUI was asked to have free, beside models, each time one was loaded

_load_models_gpu = mm.load_models_gpu


def _noted(models: Any, memory_required: int = 0, **others: Any) -> Any:
    requests.append(int(memory_required))
    return _load_models_gpu(models, memory_required=memory_required, **others)


mm.load_models_gpu = _noted


def _write(name: str, **tensors: torch.Tensor) -> str:
    path = Path(folder_paths.get_output_directory(), "probe", f"{name}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)
    return str(path)


def _pickles(thing: Any) -> str:
    try:
        pickle.dumps(thing)
    except TypeError as error:
        return str(error)
    return "yes"


class ProbeSession(io.ComfyNode):
    """A session's latents to a file, and what its model holds. Runs each time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeSession",
            inputs=[io.Custom("SF_SESSION").Input("session"), io.String.Input("name", default="session")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, session: Any, name: str) -> io.NodeOutput:
        core = session.core
        shared = core.model.shared
        _seen.append(weakref.ref(shared))
        facts = {
            "file": _write(name, latents=core.latents),
            "how": core.how,
            "chunks": core.chunks,
            "decoded": session.decoded,
            "events": [block.event.code for block in core.blocks],
            "fingerprint": core.model.fingerprint,
            "config": core.config.as_dict(),
            "cache_bytes": shared.caches.nbytes,
            "predicted_bytes": core.model.next_cache_bytes(core),
            "weight_bytes": core.model.ledger.weights,
            "working_bytes": core.model.ledger.parts(core.model.setup(core)).working,
            "requests": list(requests),
            "pickles": _pickles(session),
            "pointers": [p.data_ptr() for p in core.model.patcher.model.diffusion_model.parameters()],
        }
        requests.clear()
        return io.NodeOutput(ui={"facts": [facts]})


class ProbeTensor(io.ComfyNode):
    """A LATENT or an IMAGE to a file. Runs each time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeTensor",
            inputs=[
                io.Latent.Input("latent", optional=True),
                io.Image.Input("image", optional=True),
                io.String.Input("name", default="tensor", optional=True),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, name: str = "tensor", latent: Any = None, image: Any = None) -> io.NodeOutput:
        return io.NodeOutput(ui={"file": [_write(name, tensor=image if latent is None else latent["samples"])]})


class ProbeLive(io.ComfyNode):
    """How many of the large things that `ProbeSession` has seen still exist, and how many bytes they hold."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeLive", inputs=[], outputs=[], is_output_node=True)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls) -> io.NodeOutput:
        gc.collect()
        alive = {id(state): state for state in (reference() for reference in _seen) if state is not None}
        facts = {"alive": len(alive), "bytes": sum(state.nbytes for state in alive.values())}
        return io.NodeOutput(ui={"facts": [facts]})


_vae_loads: list[int] = []


class ProbeVaeLoads(io.ComfyNode):
    """How often the pack has copied a VAE's weights since this node ran last. Runs each time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[Any] = [io.AnyType.Input("after", optional=True)]
        return io.Schema(node_id="ProbeVaeLoads", inputs=inputs, outputs=[], is_output_node=True)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")

    @classmethod
    def execute(cls, after: Any = None) -> io.NodeOutput:
        (module,) = [m for name, m in sys.modules.items() if name.endswith("self-forcing.nodes.adapters.vae")]
        load = vars(module)["load_vae"]
        if not hasattr(load, "counts"):

            def counting(*args: Any) -> Any:
                _vae_loads.append(1)
                return load(*args)

            counting.counts = True  # type: ignore[attr-defined]
            vars(module)["load_vae"] = counting
        loads = len(_vae_loads)
        _vae_loads.clear()
        return io.NodeOutput(ui={"loads": [loads]})


NODES: list[type[io.ComfyNode]] = [ProbeSession, ProbeTensor, ProbeLive, ProbeVaeLoads]
