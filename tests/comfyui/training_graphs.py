"""Graphs that train the tiny teacher for a few steps."""

from __future__ import annotations

from typing import Any

from tests.comfyui.graphs import BLUE, RED, Graph, Node, Out, Tiny

SMALL = {
    **{"result": "LoRA", "start_steps": 3, "steps": 2, "batch_size": 2, "accumulate": 1, "learning_rate": 1e-3},
    **{"rank": 4, "chunks": 2, "width": 64, "height": 64, "guidance": 0.5, "negative": "", "checkpointing": False},
    **{"sample_every": 1, "seed": 5, "prompts": f"{RED}\n\n  {BLUE}\n"},
}


def teacher(graph: Graph) -> Tiny:
    """Add the parts of the embedded teacher."""
    parts = graph("SFLoadTiny", weights="teacher")
    return Tiny(graph, parts[0], parts[1], parts[2])


def train(graph: Graph, name: str, model: Out | None = None, **changes: Any) -> Node:
    """Add Train Self Forcing with small settings."""
    parts = teacher(graph)
    return graph("SFTrain", model=model or parts.model, clip=parts.clip, name=name, **{**SMALL, **changes})
