"""Whatever the executor keeps, forgets or hands out twice: the video is the one of a fresh server, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.comfyui import servers
from tests.comfyui.graphs import BLUE, RED, Graph, Out, Tiny, facts, forget_all, forget_chunks, latents, probe
from tools.comfyui.checkout import ROOT
from tools.comfyui.server import PACK, PromptInterrupted, Server

Build = Callable[[Graph], Out]  # the session to look at


def chunks(count: int, words: str = BLUE, seed: int = 0) -> Build:
    def build(graph: Graph) -> Out:
        tiny = Tiny.of(graph)
        return tiny.sampled(tiny.session(words, seed), count)

    return build


def look(server: Server, build: Build) -> Tensor:
    graph = Graph()
    number = probe(graph, build(graph))
    return latents(server.run(graph.prompt), number)


@pytest.fixture(scope="module")
def fresh(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Build], Tensor]]:
    """What another server of this version makes that remembers nothing."""
    base = tmp_path_factory.mktemp(f"fresh-{server.checkout.version}")
    other = Server(server.checkout, base, packs={PACK: ROOT, "probe_pack": servers.PROBES}, threads=1)

    def run(build: Build) -> Tensor:
        forget_all(other)
        return look(other, build)

    with other:
        yield run


@pytest.fixture(params=["journal kept", "journal lost"])
def between(server: Server, request: pytest.FixtureRequest) -> Callable[[], None]:
    """What happens between two queues: the cache must be right with the journal and without it."""
    forget_all(server)
    return (lambda: None) if request.param == "journal kept" else (lambda: forget_chunks(server))


def test_queued_twice(server: Server, fresh: Callable[[Build], Tensor], between: Callable[[], None]) -> None:
    want = fresh(chunks(3))
    for _ in range(2):
        assert torch.equal(look(server, chunks(3)), want)
        between()


def test_only_the_last_widget_changed(
    server: Server, fresh: Callable[[Build], Tensor], between: Callable[[], None]
) -> None:
    want = fresh(chunks(8))
    for count in (3, 4, 8, 2, 5):
        assert torch.equal(look(server, chunks(count)), want[:, :, : 3 * count])
        between()


def test_another_prompt_in_between(
    server: Server, fresh: Callable[[Build], Tensor], between: Callable[[], None]
) -> None:
    want, other = fresh(chunks(4)), fresh(chunks(4, seed=7))
    for build, wanted in ((chunks(4), want), (chunks(4, seed=7), other), (chunks(4), want)):
        assert torch.equal(look(server, build), wanted)
        between()
    assert not torch.equal(want, other)


def test_two_sessions_from_one_model_in_one_graph(
    server: Server, fresh: Callable[[Build], Tensor], between: Callable[[], None]
) -> None:
    """They take turns on the one cache."""
    graph = Graph()
    tiny = Tiny.of(graph)
    first, second = tiny.session(BLUE, 0), tiny.session(BLUE, 7)
    for _ in range(3):
        first, second = tiny.sampled(first, 2), tiny.sampled(second, 2)
    numbers = probe(graph, first, "first"), probe(graph, second, "second")
    outputs = server.run(graph.prompt)
    assert torch.equal(latents(outputs, numbers[0]), fresh(chunks(6)))
    assert torch.equal(latents(outputs, numbers[1]), fresh(chunks(6, seed=7)))


def test_one_session_wired_into_two_samplers(server: Server, fresh: Callable[[Build], Tensor]) -> None:
    """A fork: both futures, and the past itself, in one graph."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    past = tiny.sampled(tiny.session(BLUE), 5)
    again = graph("SFRewind", session=past, chunks=1, new_seed=3)[0]
    on, other = tiny.sampled(past, 3), tiny.sampled(again, 4)
    numbers = [probe(graph, session, name) for session, name in ((past, "past"), (on, "on"), (other, "other"))]
    outputs = server.run(graph.prompt)

    def rolled_again(graph: Graph) -> Out:
        tiny = Tiny.of(graph)
        past = tiny.sampled(tiny.session(BLUE), 5)
        return tiny.sampled(graph("SFRewind", session=past, chunks=1, new_seed=3)[0], 4)

    straight = fresh(chunks(8))
    assert torch.equal(latents(outputs, numbers[0]), straight[:, :, :15])
    assert torch.equal(latents(outputs, numbers[1]), straight)
    assert torch.equal(latents(outputs, numbers[2]), fresh(rolled_again))
    assert not torch.equal(latents(outputs, numbers[2]), straight)


@pytest.mark.parametrize("at", [40, 97])
def test_interrupted_in_the_middle_of_a_chunk_and_queued_again(
    server: Server, fresh: Callable[[Build], Tensor], between: Callable[[], None], at: int
) -> None:
    """The second queue gives the whole video; with the journal it only makes what was missing."""

    def build(graph: Graph) -> Out:
        tiny = Tiny.of(graph)
        model = graph("ProbeAttention", model=tiny.model, name=f"at {at}", at=at, does="interrupt")[0]
        return tiny.sampled(tiny.session(BLUE, model=model), 6)

    graph = Graph()
    number = probe(graph, build(graph))
    with pytest.raises(PromptInterrupted):
        server.run(graph.prompt)
    between()
    outputs = server.run(graph.prompt)
    assert torch.equal(latents(outputs, number), fresh(chunks(6)))


def test_a_prompt_switched_and_recached_after_a_run(
    server: Server, fresh: Callable[[Build], Tensor], between: Callable[[], None]
) -> None:
    def build(recache: bool) -> Build:
        def switched(graph: Graph) -> Out:
            tiny = Tiny.of(graph)
            past = tiny.sampled(tiny.session(BLUE), 4)
            words = tiny.text(RED)
            return tiny.sampled(graph("SFSwitchPrompt", session=past, positive=words, recache=recache)[0], 3)

        return switched

    want = {recache: fresh(build(recache)) for recache in (False, True)}
    for recache in (False, True, False):
        assert torch.equal(look(server, build(recache)), want[recache])
        between()
    assert not torch.equal(want[False], want[True])


def test_the_journal_saves_the_work(server: Server) -> None:
    """After another graph, the same request finds its chunks and samples none of them again."""
    forget_all(server)
    made = look(server, chunks(4))
    look(server, chunks(1, seed=9))  # the executor forgets the first graph's outputs
    graph = Graph()
    number = probe(graph, chunks(4)(graph))
    outputs = server.run(graph.prompt)
    assert facts(outputs, number)["how"].startswith("kept")
    assert torch.equal(latents(outputs, number), made)


def test_the_journal_is_bounded_and_the_oldest_goes_first(server: Server) -> None:
    forget_all(server)
    folder = server.base / "temp" / "self_forcing" / "chunks"
    for kept in (40, 20_000):
        graph = Graph()
        graph("ProbeSmallJournal", chunks=kept)
        server.run(graph.prompt)
        if kept == 40:
            made = [look(server, chunks(20, seed=seed)) for seed in range(8)]  # many short runs, as people make them
            assert 40 <= len(list(folder.glob("*.safetensors"))) < 40 + 64 < 8 * 20
            server.free(unload_models=False, free_memory=True)
            assert torch.equal(look(server, chunks(20, seed=0)), made[0])


def test_a_stream_and_sampled_chunks_are_the_same_video(server: Server, fresh: Callable[[Build], Tensor]) -> None:
    forget_all(server)

    def streamed(graph: Graph) -> Out:
        tiny = Tiny.of(graph)
        return graph("SFStreamVideo", session=tiny.session(BLUE), vae=tiny.vae, seconds=4.2, fps=16.0)[1]

    want = fresh(chunks(6))
    assert torch.equal(look(server, streamed), want)


def test_the_probe_writes_where_it_says(server: Server) -> None:
    """The tests above compare files; a stale one would pass them all."""
    graph = Graph()
    tiny = Tiny.of(graph)
    number = probe(graph, tiny.sampled(tiny.session(BLUE), 1), "fresh file")
    path = Path(facts(server.run(graph.prompt), number)["file"])
    path.unlink()
    assert facts(server.run(graph.prompt), number)["file"] == str(path)
    assert path.exists()
