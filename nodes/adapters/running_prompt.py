"""The prompt that ComfyUI executes: who queued it, and the graph of each of its nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...sf_core.hashing import digest


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


def nodes_before(*values: Any) -> Iterator[list[dict[str, Any]]]:
    """Yield the nodes of the running graph before some inputs: those that are wired to them, those before these, ..."""
    graph, seen, nearest = running_prompt().graph, set[str](), list(values)
    while nearest:
        numbers = dict.fromkeys(number for number in map(origin_of, nearest) if number is not None)
        nodes = [graph.get(number, {}) for number in numbers if number not in seen]
        seen.update(numbers)
        yield nodes
        nearest = [value for node in nodes for value in node.get("inputs", {}).values()]


def origin_of(value: Any) -> str | None:
    """Return the node that an input is wired to; None: the input has a value."""
    return str(value[0]) if isinstance(value, list) and len(value) == 2 else None


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
        todo += filter(None, map(origin_of, inputs.values()))
    return digest(node_id.encode(), *(f"{number} {part}".encode() for number, part in sorted(parts.items())))
