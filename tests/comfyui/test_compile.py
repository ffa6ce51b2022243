"""ComfyUI's Torch Compile node: the pack compiles its own parts as it asks for, once, and says what it cannot do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfyui.graphs import BLUE, RED, Graph, Out, Tiny, forget_all, latents, probe
from tools.comfyui.server import PromptFailed, Server

CHUNKS = 4


def made(server: Server, words: str, seed: int, backend: str | None) -> tuple[Tensor, int]:
    """Latents of a session, and how many graphs the server has compiled since it started."""
    graph = Graph()
    tiny = Tiny.of(graph)
    model = tiny.model if backend is None else graph("TorchCompileModel", model=tiny.model, backend=backend)[0]
    session = tiny.sampled(tiny.session(words, seed=seed, model=model), CHUNKS)
    number, counter = probe(graph, session), graph("ProbeCompiled", session=session).number
    outputs = server.run(graph.prompt, timeout=600)
    return latents(outputs, number), int(outputs[counter]["graphs"][0])


def test_a_compiled_model_makes_the_same_video_and_is_compiled_once(server: Server) -> None:
    """Whatever the prompt, the seed, the chunk, the session: nothing is compiled again."""
    forget_all(server)
    plain, before = made(server, RED, 5, None)
    compiled, after = made(server, RED, 5, "inductor")
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-3)
    assert not torch.equal(compiled, plain)  # it rounds otherwise, so its chunks are kept apart
    assert after > before
    assert made(server, BLUE, 6, "inductor")[1] == after
    assert torch.equal(made(server, RED, 5, None)[0], plain)


def test_cuda_graphs_are_refused_in_a_sentence(server: Server) -> None:
    with pytest.raises(PromptFailed, match=r"'cudagraphs', which records CUDA graphs.*Choose the backend 'inductor'"):
        made(server, RED, 5, "cudagraphs")


def with_options(graph: Graph, **options: Any) -> Out:
    """The embedded model, to be compiled with these options of inductor."""
    return graph("ProbeCompileOptions", model=Tiny.of(graph).model, options=json.dumps(options))[0]


def test_an_option_that_records_cuda_graphs_is_refused_too(server: Server) -> None:
    graph = Graph()
    graph("ProbeModel", dynamic="no", model=with_options(graph, **{"triton.cudagraphs": True}))
    with pytest.raises(PromptFailed, match=r"the option 'triton.cudagraphs', which records CUDA graphs"):
        server.run(graph.prompt)


def test_other_options_round_otherwise_so_their_chunks_are_kept_apart(server: Server) -> None:
    graph = Graph()
    options: list[dict[str, Any]] = [{}, {"emulate_precision_casts": True}, {"emulate_precision_casts": True}]
    numbers = [graph("ProbeModel", dynamic="no", model=with_options(graph, **one)).number for one in options]
    outputs = server.run(graph.prompt)
    plain, other, again = (outputs[number]["facts"][0]["state"] for number in numbers)
    assert plain != other == again
