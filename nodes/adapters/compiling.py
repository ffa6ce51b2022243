"""ComfyUI's Torch Compile nodes: what they ask for, and whether the pack can do it."""

from __future__ import annotations

from typing import Any

_KEY = "torch_compile_kwargs"  # in a MODEL's options, by core's TorchCompileModel and by other packs' nodes
_GRAPHS = "triton.cudagraphs"  # option of inductor
_WITH_GRAPHS = ("reduce-overhead", "max-autotune")  # modes of inductor that record CUDA graphs


def compile_options(patcher: Any) -> dict[str, Any] | None:
    """Return the arguments of ``torch.compile`` that a MODEL asks for; None: it is not to be compiled.

    Raises:
        ValueError: It asks for CUDA graphs, which do not go together with compiled halves of blocks.
    """
    asked = patcher.model_options.get(_KEY)
    if not asked:
        return None
    backend, mode = asked.get("backend", "inductor"), asked.get("mode")
    by_option = (asked.get("options") or {}).get(_GRAPHS)
    if backend == "cudagraphs" or mode in _WITH_GRAPHS or by_option:
        what = f"the backend {backend!r}" if backend == "cudagraphs" else f"the mode {mode!r}"
        what = f"the option {_GRAPHS!r}" if by_option else what
        raise ValueError(
            f"Torch Compile asks for {what}, which records CUDA graphs: all layers of the model share what is "
            "compiled, and would overwrite each other's results. Choose the backend 'inductor' with the mode 'default'"
        )
    known = ("backend", "mode", "options", "dynamic")  # fullgraph: the call of attention is never compiled
    return {name: asked[name] for name in known if asked.get(name) is not None}


def compile_token(patcher: Any) -> str:
    """Return a text that differs whenever a MODEL is compiled otherwise, since that rounds otherwise."""
    asked = patcher.model_options.get(_KEY) or {}
    options = {name: value for name, value in (asked.get("options") or {}).items() if not callable(value)}
    facts = [f"{name}={asked[name]}" for name in ("backend", "mode", "dynamic") if name in asked]
    return " ".join([*facts, *(f"{name}={value}" for name, value in sorted(options.items()))])
