"""What holds for widgets holds for wires: a value out of range is named before anything is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load_file

from sf_core import tiny
from sf_core.files.checkpoint import LATENTS
from tests.comfyui import models
from tests.comfyui.graphs import BLUE, Graph, Out, Tiny
from tests.comfyui.training_graphs import train
from tools.comfyui.server import PromptFailed, Server

Build = Callable[[Graph, Tiny, Out], Any]


def session(graph: Graph, parts: Tiny, **changes: Any) -> Out:
    inputs = {"model": parts.model, "positive": parts.text(BLUE), "width": 64, "height": 64, "seed": 0, **changes}
    return graph("SFSession", **inputs)[0]


def stream(graph: Graph, parts: Tiny, **changes: Any) -> Any:
    inputs = {"vae": parts.vae, "seconds": 0.5, "fps": 16.0, **changes}
    return graph("SFStreamVideo", session=session(graph, parts), **inputs)


def decode(graph: Graph, parts: Tiny, fps: Out) -> Any:
    made = parts.sampled(session(graph, parts), 1)
    frames = graph("SFDecodeChunks", session=made, vae=parts.vae, fps=fps)[0]
    return graph("PreviewImage", images=frames)


def sample(graph: Graph, parts: Tiny, chunks: Out) -> Any:
    made = graph("SFSampleChunks", session=session(graph, parts), chunks=chunks)[0]
    return graph("SFSessionInfo", session=made)


def info(made: Callable[[Graph, Tiny, Out], Out]) -> Build:
    return lambda graph, parts, value: graph("SFSessionInfo", session=made(graph, parts, value))


def settings(name: str) -> Build:
    def build(graph: Graph, parts: Tiny, value: Out) -> Any:
        widgets = {
            **{"preset": "custom", "chunk_frames": 3, "window_frames": 21, "sink_frames": 0, "shift": 5.0},
            **{"sink_position": "absolute", "denoising_steps": "1000, 500", "warp_steps": True, "context_noise": 0.0},
            **{"first_chunk_frames": 0, "first_chunk_steps": "", name: value},
        }
        made = graph("SFRolloutSettings", **widgets)[0]
        return graph("SFSessionInfo", session=session(graph, parts, settings=made))

    return build


CASES: list[tuple[str, Build, str, list[Any]]] = [
    ("fps", lambda g, p, v: stream(g, p, fps=v), "from 1 to 240", [0.0, -16.0, 1e9]),
    ("fps", decode, "from 1 to 240", [0.0]),
    ("seconds", lambda g, p, v: stream(g, p, seconds=v), "from 0 to 86,400", [-3.0]),
    ("chunks", sample, "whole number from 1 to 100000", [0, -1]),
    ("width", info(lambda g, p, v: session(g, p, width=v)), "whole number from 16 to 8192", [0, -64, 2**40]),
    ("seed", info(lambda g, p, v: session(g, p, seed=v)), "whole number from 0", [-1]),
    ("chunks", info(lambda g, p, v: g("SFRewind", session=session(g, p), chunks=v, new_seed=-1)[0]), "from 0", [-1]),
    *((name, settings(name), "expected a whole number", [-5]) for name in ("chunk_frames", "window_frames")),
    ("shift", settings("shift"), "expected a number from 0.1 to 100", [-5.0]),
]


@pytest.mark.parametrize(("name", "build", "words", "values"), CASES)
def test_a_wired_value_out_of_range_is_named(
    server: Server, name: str, build: Build, words: str, values: list[Any]
) -> None:
    for value in values:
        graph = Graph()
        kind = "PrimitiveFloat" if isinstance(value, float) else "PrimitiveInt"
        build(graph, Tiny.of(graph), graph(kind, value=value)[0])
        with pytest.raises(PromptFailed) as failure:
            server.run(graph.prompt)
        # a range writes thousands apart, ComfyUI's own check does not
        written = (
            f"{value:g}",
            f"{value}",
            f"{value:,.0f}",
        )
        assert any(f"'{name}' is {number};" in str(failure.value) for number in written)
        assert words in str(failure.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("batch_size", 0), ("rank", 0), ("chunks", 0), ("seed", -1), ("steps", 0), ("accumulate", 0)),
        *(("sample_every", 0), ("guidance", -5.0), ("learning_rate", 0.0), ("start_steps", -1), ("width", 0)),
    ],
)
def test_a_training_with_a_wired_value_out_of_range_writes_nothing(server: Server, name: str, value: Any) -> None:
    graph = Graph()
    kind = "PrimitiveFloat" if isinstance(value, float) else "PrimitiveInt"
    train(graph, f"wired_{name}", **{name: graph(kind, value=value)[0]})
    with pytest.raises(PromptFailed, match=rf"'{name}' is {value:g}; expected"):
        server.run(graph.prompt)
    assert not (server.base / "output" / "self_forcing_training" / f"wired_{name}").exists()


def test_a_training_learns_prompts_with_a_byte_order_mark_and_half_an_emoji(server: Server) -> None:
    graph = Graph()
    changes: dict[str, Any] = {"prompts": f"\ufeff{BLUE}\n{BLUE} \ud83d", "start_steps": 0, "steps": 1}
    train(graph, "\u0928\u092e\u0938\u094d\u0924\u0947", **changes)  # a name with vowel signs
    server.run(graph.prompt)
    server.run(graph.prompt)  # again, from where it ended


def test_a_whole_model_of_the_tiny_world_plays_with_the_tiny_vae(server: Server) -> None:
    """As `train --recipe tiny-world` and Self Forcing Train write it: the file names its own latents."""
    vae = tiny.load_vae()
    facts = json.dumps({"mean": vae.mean.tolist(), "std": vae.std.tolist()})
    weights = load_file(tiny.FOLDER / "transformer.safetensors")
    heads = str(tiny.load_transformer().arch.num_heads)
    metadata = {"sf.num_heads": heads, "sf.text_len": str(tiny.load_transformer().arch.text_len), LATENTS: facts}
    models.put(server, "diffusion_models", "of_the_tiny_world.safetensors", weights, metadata)
    graph = Graph()
    parts = Tiny.of(graph)
    inputs = {"model_name": "of_the_tiny_world.safetensors", "weight_dtype": "default", "preset": "from the model"}
    own = Tiny(graph, graph("SFLoadModel", **inputs)[0], parts.clip, parts.vae)
    stream(graph, own)
    server.run(graph.prompt)
