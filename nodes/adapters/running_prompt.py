"""The prompt that ComfyUI executes: who queued it, and the graph of each of its nodes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...sf_core.hashing import digest

PROMPT_INPUTS = ("text", "prompt", "value", "string")  # of text encoders, and of nodes that hold a text for them


@dataclass(frozen=True)
class RunningPrompt:
    """A prompt in execution.

    Attributes:
        prompt_id: ComfyUI's id of it; "" if none runs.
        client_id: The client that queued it; "" if it named none.
        graph: {node: {"class_type", "inputs"}} as it was queued.
        extra: What was queued beside the graph.
    """

    prompt_id: str = ""
    client_id: str = ""
    graph: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def running_prompt() -> RunningPrompt:
    """Return the prompt in execution. To be called in the thread that runs the graph."""
    server = PromptServer.instance
    running = list(server.prompt_queue.currently_running.values())
    if not running:
        return RunningPrompt(client_id=str(server.client_id or ""))
    _, prompt_id, graph, extra = running[-1][:4]  # ComfyUI runs one at a time
    return RunningPrompt(str(prompt_id), str(server.client_id or ""), graph, extra)


def executing_node() -> str:
    """Return the id of the node that is asked for its fingerprint or executed; "" outside of both."""
    context = get_executing_context()
    return "" if context is None else str(context.node_id)


def words_of(name: str) -> str:
    """Return the prompt behind an input of the node that is executed: the text of the nearest node that has one.

    Args:
        name: The input, a CONDITIONING.

    Returns:
        The text; "" if no node before it has exactly one.
    """
    graph = running_prompt().graph
    nearest, seen = [graph.get(executing_node(), {}).get("inputs", {}).get(name)], set[str]()
    while nearest:
        nodes = [graph.get(number, {}) for number in map(_origin, nearest) if number and number not in seen]
        seen.update(filter(None, map(_origin, nearest)))
        texts = [value for node in nodes for value in _texts(node)]
        if texts:
            return texts[0].strip() if len(texts) == 1 else ""
        nearest = [value for node in nodes for value in node.get("inputs", {}).values()]
    return ""


def _origin(value: Any) -> str | None:
    """Return the node that an input is wired to; None: the input has a value."""
    return str(value[0]) if isinstance(value, list) and len(value) == 2 else None


def _texts(node: Any) -> list[str]:
    inputs = node.get("inputs", {})
    return [value for key, value in inputs.items() if key in PROMPT_INPUTS and isinstance(value, str) and value.strip()]


def graph_digest(node_id: str) -> bytes:
    """Return a digest of a node and everything before it in the running prompt: what ComfyUI's cache knows it by."""
    graph, parts, todo = running_prompt().graph, dict[str, str](), [node_id]
    while todo:
        number = todo.pop()
        if number in parts:
            continue
        node = graph.get(number, {})  # a node that another one made while it ran is not in the prompt
        inputs = node.get("inputs", {})
        parts[number] = json.dumps([node.get("class_type"), inputs], sort_keys=True, default=str)
        todo += filter(None, map(_origin, inputs.values()))
    return digest(node_id.encode(), *(f"{number} {part}".encode() for number, part in sorted(parts.items())))
