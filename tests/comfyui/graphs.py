"""Prompts for a real server, written as Python; and what the probes brought back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tools.comfyui.server import Server

RED = "a red circle moving left quickly on a black background"
BLUE = "a blue square moving up slowly on a white background"
SAVE = {"format": "auto", "codec": "auto", "format.codec": "auto"}  # of Save Video, in any version


@dataclass(frozen=True)
class Out:
    """An output of a node."""

    node: str
    slot: int = 0


@dataclass
class Graph:
    """``a = graph("SFLoadTiny"); graph("CLIPTextEncode", text="...", clip=a[1])``; `prompt` is what /prompt takes."""

    prompt: dict[str, Any] = field(default_factory=dict)

    def __call__(self, kind: str, **inputs: Any) -> Node:
        number = str(len(self.prompt) + 1)
        wired = {k: [v.node, v.slot] if isinstance(v, Out) else v for k, v in inputs.items()}
        self.prompt[number] = {"class_type": kind, "inputs": wired}
        return Node(number)


@dataclass(frozen=True)
class Node:
    number: str

    def __getitem__(self, slot: int) -> Out:
        return Out(self.number, slot)


@dataclass(frozen=True)
class Tiny:
    """The embedded model's parts in a graph."""

    graph: Graph
    model: Out
    clip: Out
    vae: Out

    @staticmethod
    def of(graph: Graph) -> Tiny:
        parts = graph("SFLoadTiny")
        return Tiny(graph, parts[0], parts[1], parts[2])

    def text(self, words: str) -> Out:
        return self.graph("CLIPTextEncode", text=words, clip=self.clip)[0]

    def session(self, words: str = RED, seed: int = 0, model: Out | None = None, **others: Any) -> Out:
        inputs = {"model": model or self.model, "positive": self.text(words), "width": 64, "height": 64, "seed": seed}
        return self.graph("SFSession", **inputs, **others)[0]

    def sampled(self, session: Out, chunks: int) -> Out:
        return self.graph("SFSampleChunks", session=session, chunks=chunks)[0]


def probe(graph: Graph, session: Out, name: str = "session") -> str:
    """Ends a graph with a look at ``session``; the number of the probe."""
    return graph("ProbeSession", session=session, name=name).number


def facts(outputs: dict[str, Any], number: str) -> dict[str, Any]:
    found: dict[str, Any] = outputs[number]["facts"][0]
    return found


def latents(outputs: dict[str, Any], number: str) -> Tensor:
    return load_file(facts(outputs, number)["file"])["latents"].clone()


def tensor(outputs: dict[str, Any], number: str) -> Tensor:
    return load_file(outputs[number]["file"][0])["tensor"].clone()


def forget_chunks(server: Server) -> None:
    """Empty the journal, so that what comes next is really sampled."""
    shutil.rmtree(server.base / "temp" / "self_forcing" / "chunks", ignore_errors=True)


def forget_all(server: Server) -> None:
    """As good as a server that has just started: nothing loaded, nothing cached, no journal."""
    server.free(unload_models=True, free_memory=True)
    graph = Graph()
    graph("ProbeNothing", number=0)
    server.run(graph.prompt)  # the freeing happens before it
    forget_chunks(server)


def temp_videos(server: Server) -> list[Path]:
    return sorted((server.base / "temp" / "self_forcing").glob("stream-*.mp4"), key=lambda path: path.stat().st_mtime)
