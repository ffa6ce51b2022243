"""Facts for people about the node that is executed, from the graph that it is in: prompt, model, workflow."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from .running_prompt import executing_node, nodes_before, origin_of, running_prompt

PROMPT_INPUTS = ("text", "prompt", "value", "string")  # of text encoders, and of nodes that hold a text for them
MODEL_INPUTS = ("file", "unet_name", "ckpt_name", "model_name", "gguf_name")  # of loaders
MODEL_ENDINGS = (".safetensors", ".sft", ".gguf", ".pt", ".pth", ".ckpt", ".bin")
OWN_MODELS = {"SFLoadTiny": "tiny demo"}  # by class of the loader
WORKFLOW = "sf_workflow"  # name of the workflow in its "extra", where js/lib/server.js writes it
LONGEST = 100  # characters of a name
About = dict[str, str | float]


def words_of(name: str) -> str:
    """Return the prompt behind an input of the node that is executed: the text of the nearest node that has one.

    Args:
        name: The input, a CONDITIONING.

    Returns:
        The text; "" if no node before it has exactly one.
    """
    for nodes in nodes_before(_own_inputs().get(name)):
        texts = [text for node in nodes for text in _texts(node)]
        if texts:
            return texts[0].strip() if len(texts) == 1 else ""
    return ""


def about_session(fps: float | None = None) -> About:
    """Describe the session that the executed node has: ``model`` and ``workflow`` by name, and ``fps``; what is known.

    Args:
        fps: Frames per second; None: those of the nearest node before this one that has them.
    """
    before = [node for nodes in nodes_before(*_own_inputs().values()) for node in nodes]
    rates = (node.get("inputs", {}).get("fps") for node in before)
    found: dict[str, Any] = {
        "model": next(filter(None, map(_model_of, before)), ""),
        "workflow": _workflow(),
        "fps": fps or next((rate for rate in rates if type(rate) in (int, float)), 0),
    }
    return {name: value[:LONGEST] if isinstance(value, str) else float(value) for name, value in found.items() if value}


def _own_inputs() -> dict[str, Any]:
    inputs: dict[str, Any] = running_prompt().graph.get(executing_node(), {}).get("inputs", {})
    return inputs


def _texts(node: dict[str, Any]) -> list[str]:
    inputs = node.get("inputs", {})
    return [value for key, value in inputs.items() if key in PROMPT_INPUTS and isinstance(value, str) and value.strip()]


def _model_of(node: dict[str, Any]) -> str:
    """Return the name of the model that a node loads; "" if it loads none."""
    if (kind := node.get("class_type")) in OWN_MODELS:
        return OWN_MODELS[kind]
    values = (value for key, value in node.get("inputs", {}).items() if key in MODEL_INPUTS and not origin_of(value))
    names = (value for value in values if isinstance(value, str) and value.lower().endswith(MODEL_ENDINGS))
    return next((PurePath(name.replace("\\", "/")).stem for name in names), "")


def _workflow() -> str:
    info = running_prompt().extra.get("extra_pnginfo")
    workflow = info.get("workflow") if isinstance(info, dict) else None
    extra = workflow.get("extra") if isinstance(workflow, dict) else None
    name = extra.get(WORKFLOW) if isinstance(extra, dict) else None
    return name if isinstance(name, str) else ""
