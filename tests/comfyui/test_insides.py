"""What the pack's modules promise each other in a real ComfyUI."""

from __future__ import annotations

import pytest

from tests.comfyui.graphs import BLUE, Graph, Tiny, facts
from tools.comfyui.checkout import PRIMARY
from tools.comfyui.server import Server


def test_float64_is_not_used_where_comfyui_says_that_the_device_has_none(server: Server) -> None:
    """Also on a device that calls itself CUDA, or as here a CPU. Versions that do not say change nothing."""
    graph = Graph()
    number = graph("ProbeFloat64", session=Tiny.of(graph).session(BLUE)).number
    assert facts(server.run(graph.prompt), number) == {"True": "torch.float64", "False": "torch.float32"}


def test_a_server_that_computes_otherwise_finds_no_chunks_of_the_one_before(server: Server) -> None:
    """Stored chunks outlive a server that was killed; --fast and another attention give other ones."""
    graph = Graph()
    number = graph("ProbeArithmetic", session=Tiny.of(graph).session(BLUE)).number
    assert facts(server.run(graph.prompt), number) == {"states": 4, "same": True}


def test_what_is_reserved_for_other_programs_is_not_said_to_be_free(server: Server) -> None:
    graph = Graph()
    number = graph("ProbeReserved", model=Tiny.of(graph).model).number
    assert facts(server.run(graph.prompt), number) == {"0": 15.0, "4": 12.0}


@pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)
def test_a_nodes_inputs_are_checked_without_making_its_schema_each_time(server: Server) -> None:
    graph = Graph()
    number = graph("ProbeChecked").number
    found = facts(server.run(graph.prompt), number)
    assert (found["made"], found["values"]) == (1, [1, 2, 3])
    assert found["refused"] == [
        "'yes' is 'no', a str; expected true or false",
        "'yes' is '2', a int; expected true or false",
        "'yes' is 'tensor([1., 1.])', a Tensor; expected true or false",
        "'file' is '3', a int; expected text",
        "'file' is 'None', a NoneType; expected text",
        "'text' is '[1]', a list; expected text",
    ]


@pytest.mark.parametrize("server", ["primary"], ids=[PRIMARY], indirect=True)
def test_a_run_is_freed_when_its_node_has_ended(server: Server) -> None:
    """Not by a later collection: a cycle would keep its session, decoder and frames until then."""
    graph = Graph()
    tiny = Tiny.of(graph)
    session = graph("ProbeRunBegins", session=tiny.session(BLUE, seed=77))[0]
    run = graph("SFStreamVideo", session=session, vae=tiny.vae, seconds=0.5, fps=16.0, clip=tiny.clip)
    number = graph("ProbeRunGone", after=run[1]).number
    assert facts(server.run(graph.prompt), number) == {"runs": 1, "alive": 0}
