"""Conversion of a workflow, as the editor saves it, to the prompt that the server runs, with its /object_info.

This is what the editor does when Run is pressed. Workflows with subgraphs are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MUTED, BYPASSED = 2, 4
ONLY_IN_THE_EDITOR = {"Note", "MarkdownNote", "PrimitiveNode", "Reroute"}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
AFTER_GENERATE = {"fixed", "increment", "decrement", "randomize"}

Node = dict[str, Any]
Source = tuple[str, int]  # node id, number of its output


class WorkflowError(Exception):
    """The workflow cannot be converted to a prompt."""


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """Convert a workflow to a prompt."""
    if workflow.get("definitions", {}).get("subgraphs"):
        raise WorkflowError("workflows with subgraphs are not handled")
    nodes: dict[str, Node] = {str(node["id"]): node for node in workflow["nodes"]}
    links: dict[int, Source] = {}
    for link in workflow["links"]:
        if isinstance(link, dict):
            links[link["id"]] = (str(link["origin_id"]), link["origin_slot"])
        else:
            links[link[0]] = (str(link[1]), link[2])
    prompt: dict[str, Any] = {}
    for name, node in nodes.items():
        kind = node["type"]
        if kind in ONLY_IN_THE_EDITOR or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        if kind not in object_info:
            raise WorkflowError(f"node {name}: the server has no {kind}")
        inputs = dict(widget_values(node, object_info[kind]))
        for slot in node.get("inputs", []):
            if slot.get("link") is None:
                continue
            source = resolve(links[slot["link"]], nodes, links)
            if source is not None:
                inputs[slot["name"]] = list(source)
            elif "widget" not in slot:
                inputs.pop(slot["name"], None)
        title = node.get("title") or object_info[kind].get("display_name") or kind
        prompt[name] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
    return prompt


def with_an_end(prompt: dict[str, Any], seconds: float = 5.0) -> dict[str, Any]:
    """Limit each endless video of ``prompt`` to ``seconds``, for runs that nobody can stop."""
    for node in prompt.values():
        if node["class_type"] == "SFStreamVideo" and not node["inputs"]["seconds"]:
            node["inputs"]["seconds"] = seconds
    return prompt


def resolve(source: Source, nodes: dict[str, Node], links: dict[int, Source]) -> Source | None:
    """Follow a link through reroutes and bypassed nodes to its output; None if there is none."""
    for _ in range(len(nodes) + 1):
        name, slot = source
        node = nodes[name]
        mode, inputs = node.get("mode", 0), node.get("inputs", [])
        if node["type"] == "Reroute":
            link = inputs[0].get("link")
        elif node["type"] == "PrimitiveNode" or mode == MUTED:
            return None  # a primitive's value is also in the widget that it feeds
        elif mode == BYPASSED:
            kind = node["outputs"][slot]["type"]
            # the editor tries the input at the same place first, then any other of the type
            candidates = inputs[slot : slot + 1] + inputs
            link = next((one.get("link") for one in candidates if one["type"] == kind), None)
        else:
            return source
        if link is None:
            return None
        source = links[link]
    raise WorkflowError(f"the links through node {source[0]} go round in a circle")


def widget_values(node: Node, info: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each widget's input name and value; the editor saves values in the order of the widgets."""
    specs = _inputs(info["input"])
    saved = node.get("widgets_values") or []
    if isinstance(saved, dict):
        yield from ((name, saved[name]) for name, _ in specs if name in saved)
    else:
        yield from _take(specs, list(saved), "")


def _inputs(groups: dict[str, dict[str, Any]]) -> list[tuple[str, Any]]:
    return [one for group in ("required", "optional") for one in groups.get(group, {}).items()]


def _take(specs: list[tuple[str, Any]], saved: list[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, spec in specs:
        kind = spec[0]
        options: dict[str, Any] = spec[1] if len(spec) > 1 else {}
        if not (isinstance(kind, list) or kind in WIDGET_TYPES) or options.get("forceInput"):
            continue
        # a workflow that is older than the node has no value for its newest widgets
        value = saved.pop(0) if saved else _default(kind, options)
        # the server would read a list as a link
        yield prefix + name, {"__value__": value} if isinstance(value, list) else value
        control = options.get("control_after_generate") or (kind == "INT" and name in ("seed", "noise_seed"))
        if control and saved and saved[0] in AFTER_GENERATE:
            saved.pop(0)  # the editor's control of the value after each run, no input
        if kind == "COMFY_DYNAMICCOMBO_V3":
            chosen = next((one for one in options["options"] if one["key"] == value), None)
            yield from _take(_inputs(chosen["inputs"]) if chosen else [], saved, f"{prefix}{name}.")


def _default(kind: Any, options: dict[str, Any]) -> Any:
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, list) else options.get("options", [])
    if choices:
        return choices[0]["key"] if isinstance(choices[0], dict) else choices[0]
    return {"STRING": "", "BOOLEAN": False}.get(kind, 0)
